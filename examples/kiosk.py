"""A kiosk: one question after the other, with or without a network, until Ctrl-C.

The deck is a file of questions, in the format of `edge-agent eval`; ROUNDS is the number of questions to show. Without a
network, visitors get provisional answers. Twice a minute, a second thread sends the questions that wait. Before every
question and at the end, the kiosk shows which provisional answers were settled since it last looked.

python examples/kiosk.py deck.jsonl [ROUNDS]
"""

import contextlib
import itertools
import json
import pathlib
import sys
import threading

from edge_agent import Agent, CloudUnavailable, EdgeAgentError, Question, StorageError

DRAIN_EVERY_S = 30


def main() -> None:
    """Show one question of the deck after the other."""
    deck = [Question.from_json(json.loads(line)) for line in pathlib.Path(sys.argv[1]).read_text(encoding="utf-8").splitlines()]
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else None
    stop = threading.Event()
    drainer = threading.Thread(target=drain, args=(stop,))
    with Agent.open() as agent:
        drainer.start()
        try:
            for question in itertools.islice(itertools.cycle(deck), rounds):
                show_settled(agent)
                print(question.user_message)
                print(f"  {answered(agent, question)}")
        except KeyboardInterrupt:
            pass
        finally:
            stop.set()
            drainer.join()
        show_settled(agent)


def answered(agent: Agent, question: Question) -> str:
    """The answer as a visitor sees it; one bad question does not stop the kiosk."""
    try:
        decision = agent.ask(question)
    except EdgeAgentError as error:
        return f"cannot be answered: {error}"
    return f"{decision.answer}. {decision.answer_text}" + ("  (provisional)" if decision.provisional else "")


def drain(stop: threading.Event) -> None:
    """Send the waiting questions from time to time; a pass stops by itself if the cloud cannot be reached."""
    with contextlib.suppress(CloudUnavailable), Agent.open() as agent:  # without a cloud there is nothing to do
        while True:
            with contextlib.suppress(StorageError):  # another process drains, or the disk is full: try again later
                for _ in agent.drain():
                    pass
            if stop.wait(DRAIN_EVERY_S):
                return


def show_settled(agent: Agent) -> None:
    """Print each provisional answer that was settled since the last time. A file remembers the last one, for the next run as well."""
    seen = agent.store.path.with_name("kiosk-seen.txt")
    for ending in agent.endings(int(seen.read_text()) if seen.exists() else 0, timeout_s=0):
        final = f", the cloud says {ending.final_answer}" if ending.final_answer else ""
        print(f"  settled: {ending.answer}{final}: {ending.ending}")
        seen.write_text(str(ending.number))


main()

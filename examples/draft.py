"""Evaluate a question while a person types it, so that Enter leaves little to do.

A person is imitated here: one letter every 20 ms. Compare the time with and without the draft.

python examples/draft.py
"""

import time

from edge_agent import Agent, Question

TEXT = "Whose pulse is the fastest: 44 Mr Eder, 37 Ms Dahl, 49 Ms Gray?\nA. Mr Eder\nB. Ms Dahl\nC. Ms Gray"


def main() -> None:
    """Time the same question twice."""
    with Agent.open() as agent:
        agent.ask(Question("What is 1 + 1?", ("2", "3")), refresh=True)  # the model is open from here on
        print(f"asked at once: {milliseconds(agent):.0f} ms after Enter")
        with agent.draft() as draft:
            for end in range(1, len(TEXT) + 1):
                draft.update(TEXT[:end])  # again with every change; only the newest text counts
                time.sleep(0.02)
            draft.update(TEXT, complete=True)  # everything is there, but Enter
            draft.wait(5)
            print(f"asked after typing: {milliseconds(agent):.0f} ms after Enter")


def milliseconds(agent: Agent) -> float:
    """How long the answer takes; `refresh`, so that it is not remembered."""
    started = time.perf_counter()
    agent.ask(Question.parse(TEXT), refresh=True)
    return (time.perf_counter() - started) * 1000


main()

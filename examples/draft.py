"""Evaluate a question while a person types it, so that little work is left after Enter.

This program types like a person, one letter every 20 ms. It compares the work left with and without the draft.

python examples/draft.py
"""

import time

from edge_agent import Agent, Question

TEXT = "Whose pulse is the fastest: 44 Mr Eder, 37 Ms Dahl, 49 Ms Gray?\nA. Mr Eder\nB. Ms Dahl\nC. Ms Gray"


def main() -> None:
    """Time the same question twice."""
    with Agent.open() as agent:
        agent.ask(Question("What is 1 + 1?", ("2", "3")), refresh=True)  # opens the model
        print(f"asked at once: {after_enter(agent)}")
        with agent.draft() as draft:
            for end in range(1, len(TEXT) + 1):
                draft.update(TEXT[:end])  # call it for every change; only the newest text counts
                time.sleep(0.02)
            draft.update(TEXT, complete=True)  # all is typed except Enter
            draft.wait(5)
            print(f"asked after typing: {after_enter(agent)}")


def after_enter(agent: Agent) -> str:
    """The work that was left; `refresh` evaluates the question even if it is remembered."""
    timings = agent.ask(Question.parse(TEXT), refresh=True).timings
    left = timings.n_prompt_tokens - timings.n_cached_tokens
    return f"{left} of {timings.n_prompt_tokens} tokens were left, {timings.total_ms:.0f} ms"


main()

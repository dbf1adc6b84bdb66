"""Ask one question and print how sure the answer is.

python examples/ask.py
python examples/ask.py 'What is 12 + 7?' 18 19 24
"""

import sys

from edge_agent import Agent, Question


def main() -> None:
    """Ask the question from the command line, or an example."""
    stem, *options = sys.argv[1:] or ["What is 12 + 7?", "18", "19", "24"]
    with Agent.open() as agent:  # the settings of this device: environment, config.toml, defaults
        decision = agent.ask(Question(stem, tuple(options)))
    sure = "" if decision.confidence is None else f", {decision.confidence:.0%} sure"
    print(f"{decision.answer}. {decision.answer_text} ({decision.route}{sure})")
    if decision.provisional:
        print(f"provisional: the cloud will be asked later ({decision.reason}, queue row {decision.queue_id})")


main()

"""The progress of the recipe: lines on stderr."""

import sys


def say(step: str) -> None:
    print(step, file=sys.stderr, flush=True)

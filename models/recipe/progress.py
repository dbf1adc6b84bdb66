"""What the recipe tells the person who waits: lines on stderr."""

import sys


def say(step: str) -> None:
    print(step, file=sys.stderr, flush=True)

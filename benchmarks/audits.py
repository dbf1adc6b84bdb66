"""How many audits after a rise of disagreement the test warns, and how often it warns without one. No model runs.

python -m benchmarks.audits [--streams 1000] [--audits 2000]
"""

from __future__ import annotations

import argparse
import statistics

from edge_agent.store.agreement import DELTA, RateTest
from tests.support.agreement import PlainTest, false_alarms, latencies

RATE, AFTER, MOST = 0.3, 500, 5000  # a cloud that errs on 25 % disagrees with about 30 % of kept answers
KEPT = (100, 400, 2000)


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--streams", type=int, default=1000)
    parser.add_argument("--audits", type=int, default=2000)
    arguments = parser.parse_args()
    print(
        f"false warnings in {arguments.streams} unchanged streams of {arguments.audits} audits, disagreement {RATE:.0%} (limit {DELTA:.0%})"
    )
    for kept in KEPT:
        real, plain = (false_alarms(kind, kept, RATE, arguments.streams, arguments.audits, seed=kept) for kind in (RateTest, PlainTest))
        print(f"  {kept:4} kept questions at the calibration: {real:6.1%}   repeated binomial test: {plain:6.1%}", flush=True)
    print(
        f"audits from the rise to the warning, after {AFTER} audits at {RATE:.0%}: median, and 90 % of streams ({arguments.streams // 10})"
    )
    print("  rises to      " + "".join(f"{risen:>16.0%}" for risen in (0.4, 0.45, 0.5, 0.6, 0.8)))
    for kept in KEPT:
        cells = []
        for risen in (0.4, 0.45, 0.5, 0.6, 0.8):
            found = sorted(latencies(kept, RATE, risen, AFTER, arguments.streams // 10, seed=kept, most=MOST))
            median, late = statistics.median(found), found[len(found) * 9 // 10]
            cells.append(f"{_count(median)}, {_count(late)}")
        print(f"  {kept:4} kept    " + "".join(f"{cell:>16}" for cell in cells), flush=True)


def _count(n: float) -> str:
    return f"> {MOST}" if n >= MOST else f"{n:.0f}"


if __name__ == "__main__":
    main()

"""Does a recalibrated tau reach its target rate?

    python -m benchmarks.recalibrated CAL.db HELD.db [CAL.db HELD.db ...]

Each pair of run files (`edge-agent eval --rows`) is of one model file: `edge-agent calibrate --cloud-rate` chooses tau on the first, and
the rate that it reaches is measured on all questions of the second. The share of the calibration's own questions varies, too, so the
interval is that of both samples: the target plus or minus 1.96 standard errors of the difference.
"""

from __future__ import annotations

import argparse
import pathlib

import numpy as np

from edge_agent.core import routing
from edge_agent.core.errors import BadData
from edge_agent.measure.calibrate.fit import fit
from edge_agent.measure.calibrate.goals import CLOUD_RATE, Goal
from edge_agent.measure.results import Results
from edge_agent.measure.run import run

RATES = (0.1, 0.2, 0.3, 0.5)


def rate_of(results: Results, readout: str, tau: float, tie_share: float, salt: str) -> float:
    """The share of these questions that goes to the cloud, by the rule that a device applies."""
    deferred = [
        bool(lacks) or routing.is_below(float(score), tau, tie_share, routing.draw(fingerprint, salt))
        for score, fingerprint, lacks in zip(results.scores[readout], results.fingerprints, results.no_confidence, strict=True)
    ]
    return float(np.mean(deferred))


def lines(calibration: Results, held: Results, data_sha256: str) -> list[str]:
    """One line of the table for each target rate. Raises `BadData` if the two runs are of different model files."""
    if calibration.model.sha256 != held.model.sha256:
        raise BadData(f"{calibration.model.name} and {held.model.name} are different files; give two runs of one model file.")
    found = []
    for rate in RATES:
        made = fit(calibration, Goal(CLOUD_RATE, rate), data="", data_sha256=data_sha256, created_at="")
        chosen = made.calibration
        assert chosen is not None
        reached = rate_of(held, chosen.readout, chosen.tau, chosen.tie_share, chosen.salt)
        error = 1.96 * (rate * (1 - rate) * (1 / made.questions[0] + 1 / len(held))) ** 0.5
        found.append(
            f"| {held.model.quantization} | {chosen.readout} | {rate:.0%} | {chosen.tau:.4f} | {reached:.1%} | {rate - error:.1%} to "
            f"{rate + error:.1%} | {'yes' if abs(reached - rate) <= error else 'no'} |"
        )
    return found


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=pathlib.Path, nargs="+", metavar="RUN.db")
    wanted = parser.parse_args()
    if len(wanted.runs) % 2:
        parser.error("give the runs in pairs: CAL.db HELD.db")
    print("| file | readout | target | tau | reached | expected, 95 % | within |\n|" + "---|" * 7)
    for first, second in zip(wanted.runs[::2], wanted.runs[1::2], strict=True):
        calibration = run.load(first)
        print("\n".join(lines(calibration.results(), run.load(second).results(), calibration.facts.data_sha256)), flush=True)


if __name__ == "__main__":
    main()

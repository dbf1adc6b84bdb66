"""The picture of a chain for its card: what each round changes.

Invariant: every line is drawn from the figures that the rounds wrote.
"""

from __future__ import annotations

import pathlib
from typing import Any

import matplotlib as mpl

mpl.use("svg")
from matplotlib import pyplot  # after the choice of the backend

_LINES = (
    ("right", "right", lambda f: f["right"]),
    ("AUROC of the printed level", "level", lambda f: f["confidence"]["auroc"]),
    ("AUROC of expected_confidence", "expected", lambda f: f["expected_confidence"]["auroc"]),
)
_COLOURS = ("#555555", "#c2571a", "#1f6f8b")


def rounds(figures: list[dict[str, Any]], path: pathlib.Path) -> None:
    """Draw accuracy, AUROC, lift and calibration error of each round as an SVG."""
    mpl.rcParams.update(
        {"svg.hashsalt": "foggen", "font.family": "sans-serif", "font.size": 10, "axes.spines.top": False, "axes.spines.right": False}
    )
    x = [f["round"] for f in figures]
    figure, axes = pyplot.subplots(1, 3, figsize=(12, 3.6), layout="constrained")
    for (label, _, value), colour in zip(_LINES, _COLOURS, strict=True):
        axes[0].plot(x, [value(f) for f in figures], color=colour, label=label, marker="o", markersize=3)
    axes[0].set(title="Right, and able to tell", ylim=(0.3, 1.0))
    for readout, colour, label in (
        ("confidence", _COLOURS[1], "printed level"),
        ("expected_confidence", _COLOURS[2], "expected_confidence"),
    ):
        axes[1].plot(x, [100 * f[readout]["lift"] for f in figures], color=colour, label=label, marker="o", markersize=3)
        axes[2].plot(x, [f[readout]["ece"] for f in figures], color=colour, label=label, marker="o", markersize=3)
    axes[1].set(title="Lift over random routing, points (tau = 0.5)")
    axes[1].axhline(0, color="#bbbbbb", linewidth=1, zorder=0)
    axes[2].set(title="Calibration error (ECE)", ylim=(0, None))
    for axis in axes:
        axis.set_xlabel("round")
        axis.set_xticks(x, [f"R{i}" for i in x], fontsize=7)
        axis.legend(frameon=False, fontsize=8)
        axis.grid(axis="y", color="#eeeeee")
    figure.savefig(path, format="svg", metadata={"Date": None})
    pyplot.close(figure)

"""Pictures of what was measured; needs matplotlib (`pip install edge-agent[report]`).

Owns colours and labels. Computes nothing. Invariant: a picture says on which machine it was measured.
"""

from __future__ import annotations

import pathlib
from collections.abc import Sequence
from typing import Any

from edge_agent.errors import BadData, StorageError
from edge_agent.measure.bench import Result
from edge_agent.measure.machine import Machine


def latency_by_size(results: Sequence[Result], machine: Machine, path: pathlib.Path) -> None:
    """Each file's size against its median decision with its interval; colour for the share of decisions that differ.

    Raises `BadData` without matplotlib, `StorageError` if `path` cannot be written.
    """
    plt = _matplotlib()
    figure, axes = plt.subplots(figsize=(7, 4.2), layout="constrained")
    shares = [100 * (result.differing or 0.0) for result in results]
    sizes = [result.size_bytes / 1e6 for result in results]
    times = [result.decision_p50_ms for result in results]
    for size, result in zip(sizes, results, strict=True):
        axes.plot([size, size], result.decision_p50_interval_ms, color="0.6", linewidth=1.5, zorder=1)
    points = axes.scatter(sizes, times, c=shares, cmap="viridis", vmin=0, vmax=max(1.0, *shares), s=60, zorder=2)
    for size, took, result in zip(sizes, times, results, strict=True):
        axes.annotate(result.label, (size, took), textcoords="offset points", xytext=(7, 5), fontsize=9)
    axes.set(xlabel="file, MB", ylabel="decision, ms (median)", ylim=(0, None), xlim=(0, max(sizes) * 1.15))
    axes.set_title(f"{results[0].name} on {machine.processor}", fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
    figure.colorbar(points, label="decisions unlike the reference's, %")
    try:
        figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
    except (OSError, ValueError) as error:
        raise StorageError(f"The picture '{path}' cannot be written ({error}); give a name that ends in .svg or .png.") from error
    finally:
        plt.close(figure)


def _matplotlib() -> Any:
    try:
        import matplotlib
    except ImportError as error:
        raise BadData("Pictures need matplotlib, which is not installed; run: pip install 'edge-agent[report]'.") from error
    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    return plt

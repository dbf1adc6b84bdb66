"""Draws the results of a benchmark. Needs matplotlib, which the `report` extra installs.

Owns colours and labels. Computes nothing. Invariant: a picture names the machine of the measurement.
"""

from __future__ import annotations

import pathlib
from collections.abc import Sequence
from typing import Any

from edge_agent.core.errors import BadData, StorageError
from edge_agent.core.installation import install_command
from edge_agent.measure.bench.machine import Machine
from edge_agent.measure.bench.runs import Result


def check_can_draw(path: pathlib.Path) -> None:
    """Raise before anything is measured: `BadData` without matplotlib, `StorageError` for a format that cannot be drawn."""
    _matplotlib()
    if path.suffix.lower() not in (".svg", ".png"):
        raise StorageError(f"Cannot write the picture '{path}' ({path.suffix or 'no'} format); give a name that ends in .svg or .png.")


def latency_by_size(results: Sequence[Result], machine: Machine, path: pathlib.Path) -> None:
    """Draw the size of each file against its median decision with its interval; the colour shows how many answers differ.

    Raises `BadData` without matplotlib, and `StorageError` if `path` cannot be written.
    """
    plt = _matplotlib()
    figure, axes = plt.subplots(figsize=(7, 4.2), layout="constrained")
    shares = [100 * (result.differing or 0.0) for result in results]
    sizes = [result.size_bytes / 1e6 for result in results]
    times = [result.decision_p50_ms for result in results]
    for size, result in zip(sizes, results, strict=True):
        axes.plot([size, size], result.decision_p50_interval_ms, color="0.6", linewidth=1.5, zorder=1)
    points = axes.scatter(sizes, times, c=shares, cmap="viridis", vmin=0, vmax=max(1.0, *shares), s=60, zorder=2)
    axes.set(xlabel="file, MB", ylabel="decision, ms (median)", ylim=(0, None), xlim=(0, max(sizes) * 1.15))
    names = sorted({result.name.removesuffix(result.quantization).rstrip("-_.") for result in results})
    axes.set_title(f"{', '.join(names)} on {machine.processor}", fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
    if any(shares):
        figure.colorbar(points, label="answers that differ from the reference, %")
    _name_points(figure, axes, list(zip(sizes, times, strict=True)), [result.label for result in results])
    try:
        figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
    except (OSError, ValueError) as error:
        raise StorageError(f"Cannot write the picture '{path}' ({error}); give a name that ends in .svg or .png.") from error
    finally:
        plt.close(figure)


def _name_points(figure: Any, axes: Any, points: list[tuple[float, float]], names: list[str]) -> None:
    """Write each name next to its point, on the side where it covers the least of other names and points."""
    figure.draw_without_rendering()
    taken: list[tuple[float, ...]] = [(x - 7, y - 7, x + 7, y + 7) for x, y in axes.transData.transform(points)]
    for point, name in zip(points, names, strict=True):
        tries: list[tuple[float, int, Any, tuple[float, ...]]] = []
        for at, (ha, va) in {(8, 0): ("left", "center"), (-8, 0): ("right", "center"), (0, 8): ("center", "bottom"),
                             (0, -8): ("center", "top"), (7, 6): ("left", "bottom"), (7, -6): ("left", "top"),
                             (-7, 6): ("right", "bottom"), (-7, -6): ("right", "top")}.items():  # fmt: skip
            label = axes.annotate(name, point, textcoords="offset points", xytext=at, ha=ha, va=va, fontsize=9)
            box = tuple(label.get_window_extent().extents)
            tries.append((sum(_overlap(box, other) for other in taken), len(tries), label, box))
        _, _, best, box = min(tries, key=lambda tried: tried[:2])
        taken.append(box)
        for _, _, label, _ in tries:
            if label is not best:
                label.remove()


def _overlap(a: Sequence[float], b: Sequence[float]) -> float:
    return max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))


def _matplotlib() -> Any:
    try:
        import matplotlib
    except ImportError as error:
        raise BadData(f"Pictures need matplotlib, which is not installed; run: {install_command('report')}") from error
    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    return plt

"""`edge-agent verify`: checks a model file, and compares it with another one."""

from __future__ import annotations

import pathlib
from typing import TYPE_CHECKING

import click

from edge_agent.cli.app import EXIT_CODES, FILES_TAU, PROFILE, SAMPLE, Amount, fraction, main, with_settings
from edge_agent.cli.show import print_check, print_json, say
from edge_agent.core.config import settings
from edge_agent.core.terminal import ProgressLine, plain

if TYPE_CHECKING:
    from edge_agent.measure.verify import ChangedShare, Comparison, Mean
    from edge_agent.model.catalog import ModelFiles


@main.command(epilog=EXIT_CODES)
@click.argument("file")
@click.option("--adapter", metavar="GGUF", help="An adapter for FILE, made with python -m convert --adapter-gguf.")
@click.option("--against", metavar="REF", help="Compare with this file, for example the same model in Q8_0 or BF16.")
@click.option("--against-adapter", metavar="GGUF", help="An adapter for REF.")
@click.option("--questions", metavar="PATH", help="Ask these questions (one JSON object a line) instead of the built-in ones.")
@click.option("--limit", type=click.IntRange(1), help=f"Ask only this many questions; from a file of --questions, {SAMPLE}.")
@click.option("--max-kl", type=Amount(), help="Fail if the mean KL divergence of the levels is larger, in nats.")
@click.option("--max-changed", callback=fraction, metavar="NUMBER", help="Fail if a larger share of routes changed, 0 to 1.")
@with_settings(*PROFILE, tau=FILES_TAU)
def verify(
    config: settings.Settings,
    file: str,
    adapter: str | None,
    against: str | None,
    against_adapter: str | None,
    questions: str | None,
    limit: int | None,
    max_kl: float | None,
    max_changed: float | None,
    as_json: bool,
) -> None:
    """Check a model file, and compare it with another.

    FILE and REF are .gguf files or names from `edge-agent models`. The checks: the bounds of the file, its profile, its sha256
    against the record, and whether it answers in FogGen's format (in a separate process). With --against, the levels and
    answers are compared too, and the questions that take another route at tau are counted. Exit code 65 if a check fails.

    A base with an adapter answers like the merged file, except for rounding: verify BASE --adapter A --against MERGED.
    """
    from edge_agent.measure.sets import loading
    from edge_agent.measure.verify import Tolerance, verify_model
    from edge_agent.model.catalog import ModelFiles, resolve, resolve_adapter, ways_of

    if against_adapter and not against:
        raise click.UsageError("--against-adapter needs --against.")
    on_it = resolve_adapter(adapter, config.models_folder) if adapter else None
    model = ModelFiles(resolve(file, config.models_folder), on_it, ways_of(config))
    reference = None
    if against:
        reference = ModelFiles(
            resolve(against, config.models_folder),
            resolve_adapter(against_adapter, config.models_folder) if against_adapter else None,
            ways_of(config),
        )
    asked = [row.question for row in loading.load(pathlib.Path(questions), limit).rows] if questions else loading.built_in()[:limit]
    with ProgressLine() as line:

        def progress(model: ModelFiles, n: int, total: int) -> None:
            line.show(f"{model.path.name}  {n}/{total} questions")

        found = verify_model(model, config.models_folder, asked, reference, config.tau, Tolerance(max_kl, max_changed), progress)
    if as_json:
        print_json(found.to_dict())
    else:
        for check in found.checks:
            print_check(check.name, check.ok, check.detail)
        if found.comparison:
            for text in _lines(found.comparison):
                say(text, 13)
    if not found.ok:
        from edge_agent.model import previous

        if hint := previous.way_back(model.path):
            click.echo(plain(hint), err=True)
        click.get_current_context().exit(65)


def _lines(comparison: Comparison) -> list[str]:
    """The comparison as lines of text."""
    size, theirs = comparison.size_bytes, comparison.reference_size_bytes
    rows = [
        ("questions", f"{comparison.n_questions}" + (f" ({comparison.n_skipped} did not fit)" if comparison.n_skipped else "")),
        ("size", f"{size / 1e6:,.1f} MB, {comparison.bits_per_weight:.2f} bits per weight ({size / theirs:.0%} of the reference)"),
        ("KL levels", _mean(comparison.level_kl) if comparison.level_kl else "- (a plain model has none)"),
        ("KL letters", _mean(comparison.letter_kl) if comparison.letter_kl else "- (answers in words)"),
        ("levels", _share(comparison.changed_levels) if comparison.changed_levels else "- (a plain model has none)"),
        ("answers", _share(comparison.changed_answers)),
        ("routes", _routes(comparison)),
    ]
    against = comparison.reference + (f" with {comparison.reference_adapter}" if comparison.reference_adapter else "")
    return ["", f"Against {against}", *(f"  {name:<10} {text}" for name, text in rows)]


def _routes(comparison: Comparison) -> str:
    routes = comparison.changed_routes
    return f"{_share(routes)} at tau {comparison.tau:g}" if routes else "- (a plain model keeps nothing at a tau)"


def _mean(mean: Mean) -> str:
    return f"{mean.mean:.5f} nats (95 % interval {mean.low:.5f} to {mean.high:.5f}; largest {mean.largest:.4f})"


def _share(share: ChangedShare) -> str:
    return f"{share.count} changed, {share.share:.1%} (95 % interval {share.low:.1%} to {share.high:.1%})"

"""`edge-agent report`: one page about a run of `edge-agent eval`, or about several files of one model."""

from __future__ import annotations

import pathlib

import click

from edge_agent.cli.app import EXIT_CODES, Amount, main, with_settings
from edge_agent.cli.show import print_json, say
from edge_agent.core.config import settings
from edge_agent.core.errors import StorageError
from edge_agent.core.files import can_write, not_written, replacing


@main.command(epilog=EXIT_CODES)
@click.argument("runs", nargs=-1, required=True, metavar="RUN...", type=click.Path(path_type=pathlib.Path))
@click.option("--out", required=True, metavar="FILE", type=click.Path(path_type=pathlib.Path), help="Write the page to this file.")
@click.option(
    "--calibration",
    metavar="FILE",
    type=click.Path(path_type=pathlib.Path),
    help="Judge the first run by this calibration instead of a tau, and say what it promises.",
)
@click.option("--cloud-ms", type=Amount(), metavar="NUMBER", help="The mean time of a call to the cloud, where the run made none.")
@click.option("--call-price", type=Amount(), metavar="NUMBER", help="The price of a call to the cloud, where the run has no prices.")
@click.option("--pictures", metavar="FOLDER", type=click.Path(path_type=pathlib.Path), help="Also write each chart to this folder, as SVG.")
@with_settings("tau")
def report(
    config: settings.Settings,
    runs: tuple[pathlib.Path, ...],
    out: pathlib.Path,
    calibration: pathlib.Path | None,
    cloud_ms: float | None,
    call_price: float | None,
    pictures: pathlib.Path | None,
    as_json: bool,
) -> None:
    """Make one HTML page about a run of `edge-agent eval --rows RUN.db`.

    With several runs of the same questions, the page also compares their files with the first one and says which to take. The page
    needs no network and no other file. No model and no cloud is asked.
    """
    from edge_agent.measure.report import of_run, page
    from edge_agent.measure.run.run import load
    from edge_agent.model.calibration import load as load_calibration

    check_page(out)
    if out.exists() and any(path.exists() and out.samefile(path) for path in runs):
        raise click.UsageError(f"'{out}' is one of the runs; give --out another name.")
    chosen = load_calibration(calibration) if calibration else None
    models = [of_run.measured(load(path), config.tau, None if n else chosen, cloud_ms, call_price) for n, path in enumerate(runs)]
    written = {out: page.html(models)}
    if pictures:
        pictures.mkdir(parents=True, exist_ok=True)
        written |= {pictures / f"{name}.svg": svg for name, svg in page.pictures(models).items()}
    for path, text in written.items():
        write_page(path, text)
    if as_json:
        print_json({"files": [str(path) for path in written], "models": [model.results.model.sha256 for model in models]})
    else:
        for path in written:
            say(f"wrote {path}")


def check_page(out: pathlib.Path) -> None:
    """Raise `StorageError` before any work if a page cannot be written there."""
    if not can_write(out):
        raise StorageError(f"Cannot write the page '{out}'; choose another path.")


def write_page(path: pathlib.Path, text: str) -> None:
    """Write a whole page or picture. Raises `StorageError`."""
    try:
        with replacing(path, "w", private=False) as file:
            file.write(text)
    except OSError as error:
        raise not_written(path, error) from error

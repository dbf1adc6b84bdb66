"""`python -m convert`: arguments in, files and a list of them out."""

from __future__ import annotations

import json
import os
import pathlib
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # numpy reads this when it loads; the merges already run in parallel

import click
from tqdm import tqdm

from convert.adapter import export_adapter
from convert.export import Conversion, Reports, Written, export
from edge_agent.core.errors import EdgeAgentError
from edge_agent.core.terminal import ProgressLine, plain
from edge_agent.fetch.checkpoints import checkpoint_folder
from edge_agent.model.profile import QUESTION_KINDS


@click.command()
@click.argument("source")
@click.option("--adapter", "adapters", multiple=True, help="A LoRA: a folder or owner/name. Repeat it to merge several in order.")
@click.option("--quants", default="Q8_0", show_default=True, help="llama.cpp's names, separated by commas; one read makes all.")
@click.option("--out", default=".", show_default=True, type=click.Path(path_type=pathlib.Path, file_okay=False), help="Where to write.")
@click.option("--name", help="The start of the file names, before the quantization.  [default: SOURCE+ADAPTER]")
@click.option(
    "--answer-kind",
    type=click.Choice(list(QUESTION_KINDS)),
    help="Answers with a letter, with the text of an option, or in its own words.  [default: what SOURCE states, or letter]",
)
@click.option(
    "--imatrix", type=click.Path(path_type=pathlib.Path), help="An importance matrix from `python -m convert.imatrix`; improves few bits."
)
@click.option("--adapter-gguf", is_flag=True, help="Write only the adapters, as one GGUF adapter for a GGUF of SOURCE; merge nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def main(
    source: str,
    adapters: tuple[str, ...],
    quants: str,
    out: pathlib.Path,
    name: str | None,
    answer_kind: str | None,
    imatrix: pathlib.Path | None,
    adapter_gguf: bool,
    as_json: bool,
) -> None:
    """Convert the transformers checkpoint SOURCE to GGUF files, with LoRA adapters merged in.

    SOURCE is a folder, owner/name or owner/name@revision on the Hugging Face Hub, or a name that `edge-agent models` lists.
    Files from the Hub are fetched once, checked, and kept in the cache. HF_TOKEN, HF_ENDPOINT and HF_HUB_OFFLINE work.
    """
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        quantizations = [part.strip() for part in quants.split(",") if part.strip()]
        with ProgressLine() as progress:
            folder, *folders = (checkpoint_folder(one, progress.transfer) for one in (source, *adapters))
        if adapter_gguf:
            written = [export_adapter(folder, folders, out, name, _say)]
        else:
            with _bar() as on_weights:
                job = Conversion(folder, folders, quantizations, name or "", answer_kind or "", imatrix)
                written = export(job, out, Reports(_say, on_weights))
    except EdgeAgentError as error:
        click.echo(f"convert: {plain(str(error))}", err=True)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        click.echo("convert: interrupted; no unfinished file is left", err=True)
        sys.exit(130)
    _show(written, as_json)


def _show(written: list[Written], as_json: bool) -> None:
    for file in written:
        for line in file.fallbacks:
            _say(f"{file.path.name}: {line}")
    rows = [{"path": str(file.path), "quantization": file.quantization, "sha256": file.sha256, "bytes": file.bytes} for file in written]
    if as_json:
        click.echo(json.dumps(rows, indent=2))
    else:
        for row in rows:
            click.echo(f"{row['path']}  {row['bytes']:,} bytes  sha256 {row['sha256']}")


def _say(line: str) -> None:
    click.echo(line, err=True)


def _interrupt(_: int, __: FrameType | None) -> None:
    raise KeyboardInterrupt


@contextmanager
def _bar() -> Iterator[Callable[[int, int], None]]:
    """A progress bar on stderr while weights are converted, if stderr is a terminal."""
    with tqdm(unit=" weights", unit_scale=True, disable=None, delay=0.5, leave=False) as bar:

        def on_weights(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield on_weights


if __name__ == "__main__":
    main(prog_name="python -m convert")

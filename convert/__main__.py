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

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # read as numpy loads; the merges run side by side already

import click
from tqdm import tqdm

from convert.adapter import export_adapter
from convert.export import Written, export
from edge_agent.core.errors import EdgeAgentError
from edge_agent.core.terminal import ProgressLine, plain
from edge_agent.fetch.checkpoints import checkpoint_folder


@click.command()
@click.argument("source")
@click.option("--adapter", "adapters", multiple=True, help="A LoRA, folder or owner/name; several are merged in order.")
@click.option("--quants", default="Q8_0", show_default=True, help="llama.cpp's names, separated by commas; all are made in one reading.")
@click.option("--out", default=".", show_default=True, type=click.Path(path_type=pathlib.Path, file_okay=False), help="Where the files go.")
@click.option("--name", help="What the files are called before the quantization.  [default: the folder's name]")
@click.option(
    "--answer-kind", type=click.Choice(["letter", "text"]), default="letter", show_default=True, help="A letter, or words of its own."
)
@click.option(
    "--imatrix", type=click.Path(path_type=pathlib.Path), help="An importance matrix, made by python -m convert.imatrix; for few bits."
)
@click.option("--adapter-gguf", is_flag=True, help="Write the adapters alone, as one GGUF adapter for a GGUF of SOURCE; nothing is merged.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for machines.")
def main(
    source: str,
    adapters: tuple[str, ...],
    quants: str,
    out: pathlib.Path,
    name: str | None,
    answer_kind: str,
    imatrix: pathlib.Path | None,
    adapter_gguf: bool,
    as_json: bool,
) -> None:
    """Make GGUF files of the transformers checkpoint SOURCE, with LoRA adapters merged in.

    SOURCE is a folder, owner/name or owner/name@revision on the Hugging Face Hub, or a name of `edge-agent models`. What the Hub
    has is fetched once, checked, and kept in the cache. HF_TOKEN, HF_ENDPOINT and HF_HUB_OFFLINE are honoured.
    """
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        quantizations = [part.strip() for part in quants.split(",") if part.strip()]
        with ProgressLine() as progress:
            folder, *folders = (checkpoint_folder(one, progress.transfer) for one in (source, *adapters))
        if adapter_gguf:
            written = [export_adapter(folder, folders, out, name)]
        else:
            with _bar() as on_weights:
                written = export(folder, folders, quantizations, out, name, _say, answer_kind, on_weights, imatrix)
    except EdgeAgentError as error:
        click.echo(f"convert: {plain(str(error))}", err=True)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        click.echo("convert: interrupted; nothing unfinished was left behind", err=True)
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
    """A bar on the standard error while weights are converted, if that is a terminal."""
    with tqdm(unit=" weights", unit_scale=True, disable=None, delay=0.5, leave=False) as bar:

        def on_weights(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield on_weights


if __name__ == "__main__":
    main(prog_name="python -m convert")

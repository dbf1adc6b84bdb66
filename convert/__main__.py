"""`python -m convert`: arguments in, files and a list of them out."""

from __future__ import annotations

import json
import pathlib
import sys

import click

from convert.export import export
from edge_agent.cli.progress import ProgressLine
from edge_agent.errors import EdgeAgentError
from edge_agent.pull import checkpoint_folder


@click.command()
@click.argument("source")
@click.option("--adapter", "adapters", multiple=True, help="A LoRA, folder or owner/name; several are merged in order.")
@click.option("--quants", default="Q8_0", show_default=True, help="llama.cpp's names, separated by commas.")
@click.option("--out", default=".", show_default=True, type=click.Path(path_type=pathlib.Path, file_okay=False), help="Where the files go.")
@click.option("--name", help="What the files are called before the quantization.  [default: the folder's name]")
@click.option(
    "--answer-kind", type=click.Choice(["letter", "text"]), default="letter", show_default=True, help="A letter, or words of its own."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON for machines.")
def main(
    source: str,
    adapters: tuple[str, ...],
    quants: str,
    out: pathlib.Path,
    name: str | None,
    answer_kind: str,
    as_json: bool,
) -> None:
    """Make GGUF files of the transformers checkpoint SOURCE, with LoRA adapters merged in.

    SOURCE is a folder, owner/name or owner/name@revision on the Hugging Face Hub, or a name of `edge-agent models`. What the Hub
    has is fetched once, checked, and kept in the cache. HF_TOKEN, HF_ENDPOINT and HF_HUB_OFFLINE are honoured.
    """
    try:
        quantizations = [part.strip() for part in quants.split(",") if part.strip()]
        with ProgressLine() as progress:
            folder, *folders = (checkpoint_folder(one, progress.transfer) for one in (source, *adapters))
        written = export(folder, folders, quantizations, out, name, lambda step: click.echo(f"{step} ...", err=True), answer_kind)
    except EdgeAgentError as error:
        click.echo(f"convert: {error}", err=True)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        click.echo("convert: interrupted; nothing unfinished was left behind", err=True)
        sys.exit(130)
    for file in written:
        for line in file.fallbacks:
            click.echo(f"{file.path.name}: {line}", err=True)
    rows = [{"path": str(file.path), "quantization": file.quantization, "sha256": file.sha256, "bytes": file.bytes} for file in written]
    if as_json:
        click.echo(json.dumps(rows, indent=2))
    else:
        for row in rows:
            click.echo(f"{row['path']}  {row['bytes']:,} bytes  sha256 {row['sha256']}")


if __name__ == "__main__":
    main(prog_name="python -m convert")

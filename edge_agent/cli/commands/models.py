"""`edge-agent models`: the models known by name, and which of them are on this device."""

from __future__ import annotations

from typing import Any

import click

from edge_agent.cli.app import EXIT_CODES, main, with_settings
from edge_agent.cli.show import print_json, print_table
from edge_agent.core import settings


@main.command(epilog=EXIT_CODES)
@with_settings()
def models(config: settings.Settings, as_json: bool) -> None:
    """List the models known by name, and which of their files are on this device."""
    rows = _rows(config)
    if as_json:
        print_json(rows)
        return
    for row in rows:
        row["here"] = ", ".join(f"{file['name']} ({file['bytes'] / 1e6:,.0f} MB)" for file in row["files"]) or "no"
    print_table(rows, ("name", "here", "licence", "summary"))
    if any(not row["files"] for row in rows):
        click.echo("\nTo get one that is not here, run `edge-agent pull NAME`: it fetches the model or says how to make it.", err=True)


def _rows(config: settings.Settings) -> list[dict[str, Any]]:
    """The catalogue's entries with their files, then all other files in the models folder."""
    from dataclasses import asdict

    from edge_agent.model import catalog, pulled

    records = {record.file: record for record in pulled.load(config.models_folder) if record.file}
    files = {path: records.get(path.name) for path in sorted(config.models_folder.glob("*.gguf"))}
    rows = []
    for entry in catalog.entries().values():
        pinned = {"revision": entry.revision or catalog.UNPINNED, "sha256": entry.sha256 or catalog.UNPINNED}
        bundled = {catalog.resolve(entry.name): None} if entry.bundled_file else {}
        here = bundled | {path: record for path, record in files.items() if record and record.alias == entry.name}
        facts = asdict(entry) | {"answer_kind": entry.answer_kind}
        del facts["question_kind"]
        rows.append(facts | pinned | {"files": [_file(path, record) for path, record in here.items()]})
    for path, record in files.items():
        if record is None or record.alias is None:
            summary = f"pulled from {record.source}" if record else "copied here by hand"
            rows.append({"name": path.stem, "summary": summary, "licence": None, "files": [_file(path, record)]})
    return rows


def _file(path: Any, record: Any) -> dict[str, Any]:
    facts = {key: getattr(record, key) for key in ("sha256", "source", "revision", "pulled_at")} if record else {}
    return {"name": path.name, "path": str(path), "bytes": path.stat().st_size} | facts

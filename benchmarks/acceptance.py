"""Checks the published model against its published figures. Needs a network.

    python -m benchmarks.acceptance [--model foggen] [--quants Q8_0,Q4_K_M] [--limit N] --out build/acceptance

Fetches the checkpoint and the questions from the Hub, converts with `python -m convert`, and then uses `edge-agent` like a
user: `verify` (each file against the first), `ask` (the worked example of the card), `eval` (KazCulture). Writes `report.md`
and `report.json`. Exit code 0 if all published figures are reproduced, else 65. A published figure is reproduced if it is in
the 95 % interval of the measurement; with fewer questions the interval is wider, so look at both.
"""

from __future__ import annotations

import csv
import json
import pathlib
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import click
import numpy as np

from edge_agent.core.errors import BadData, EdgeAgentError
from edge_agent.core.terminal import ProgressLine
from edge_agent.fetch.hub import Hub
from edge_agent.measure import metrics
from edge_agent.model import catalog

DATASET = "issai/KazCulture"
DOMAIN = "Kazakh culture"
TAU = 0.5
CLOUD = 0.958  # the published accuracy of the cloud alone on this set
# edge raw, system, routed; percent, at tau 0.5
PUBLISHED = {"foggen": (91.3, 91.9, 1.0), "foggen-gemma3-1b": (76.3, 84.0, 16.0), "foggen-gemma3-270m": (43.7, 59.3, 31.9)}
# The case and the answer are from the card; the wording is ours.
EXAMPLE = "A company has total liabilities of $400 million and total equity of $600 million. What is its debt-to-equity ratio?"
EXAMPLE_OPTIONS = ("0.67", "1.00", "1.50", "2.00")
EXAMPLE_ANSWER = ("1.0", "A")


@click.command()
@click.option("--model", type=click.Choice(sorted(PUBLISHED)), default="foggen", show_default=True)
@click.option("--quants", default="Q8_0,Q4_K_M", show_default=True, help="The first is the reference for the others.")
@click.option("--limit", type=click.IntRange(1), help="Ask only the first so many questions.")
@click.option("--out", type=click.Path(path_type=pathlib.Path), required=True)
def main(model: str, quants: str, limit: int | None, out: pathlib.Path) -> None:
    """Fetch, convert, ask, evaluate, report."""
    out.mkdir(parents=True, exist_ok=True)
    try:
        questions = fetch_questions(out, limit)
    except EdgeAgentError as error:
        sys.exit(f"acceptance: {error}")
    entry = catalog.entries()[model]
    files = _json("convert", entry.repo, "--quants", quants, "--name", entry.file_name, "--out", str(out), "--json")
    results = [measure(model, file, files[0], questions) for file in files]
    ok = all(result["example"]["reproduced"] and all(row["reproduced"] for row in result["rows"]) for result in results)
    report = {"model": model, "repo": entry.repo, "questions": str(questions), "reproduced": ok, "files": results}
    (out / "report.json").write_text(json.dumps(report, indent=1, ensure_ascii=False))
    (out / "report.md").write_text(text(report))
    click.echo(text(report))
    sys.exit(0 if ok else 65)


def measure(model: str, file: dict[str, Any], reference: dict[str, Any], questions: pathlib.Path) -> dict[str, Any]:
    """All measurements of one file."""
    path = file["path"]
    against = [] if file is reference else ["--against", reference["path"], "--questions", str(questions), "--limit", "500"]
    verified = _json("edge_agent", "verify", path, *against, "--json", may_end_with=(0, 65))
    options = [part for option in EXAMPLE_OPTIONS for part in ("--option", option)]
    asked = _json("edge_agent", "ask", EXAMPLE, *options, "--model", path, "--policy", "only_local", "--refresh", "--json")
    rows_file = pathlib.Path(path).with_suffix(".rows.jsonl")
    settings = ("--tau", str(TAU), "--cloud-accuracy", str(CLOUD), "--rows", str(rows_file))
    _json("edge_agent", "eval", str(questions), "--model", path, *settings, "--json")
    rows = [json.loads(line) for line in rows_file.read_text().splitlines()]
    said = (str(asked["confidence"]), asked["answer"])
    return {
        **file,
        "verified": {key: verified[key] for key in ("ok", "checks", "comparison")},
        "example": {"confidence": said[0], "answer": said[1], "reproduced": said == EXAMPLE_ANSWER},
        "rows": compare(rows, PUBLISHED[model]),
        "n_questions": len(rows),
    }


def compare(rows: list[dict[str, Any]], published: tuple[float, float, float]) -> list[dict[str, Any]]:
    """Edge, system and routed in percent with their 95 % intervals and the published figures."""
    right = np.array([row["right"] for row in rows], np.float64)
    routed = np.array([row["confidence"] < TAU or row["format_mass"] < 0.5 for row in rows])
    system = np.where(routed, CLOUD, right)
    figures = []
    for name, values, one in zip(("edge raw", "system", "routed"), (right, system, routed.astype(float)), published, strict=True):
        share = float(values.mean())
        low, high = metrics.bootstrap_mean(values) if name == "system" else metrics.wilson(int(values.sum()), len(values))
        inside = 100 * low - 0.05 <= one <= 100 * high + 0.05  # the published figures have one decimal
        figures.append(
            {"figure": name, "measured": 100 * share, "low": 100 * low, "high": 100 * high, "published": one, "reproduced": inside}
        )
    return figures


def text(report: dict[str, Any]) -> str:
    """The report as Markdown."""
    lines = [f"# {report['repo']} compared with its published figures", ""]
    lines += [
        f"{'All figures were reproduced.' if report['reproduced'] else 'Not all figures were reproduced.'} {DATASET} at tau = {TAU:g}.",
        "",
    ]
    for file in report["files"]:
        example, verified = file["example"], file["verified"]
        lines += [f"## {pathlib.Path(file['path']).name}", "", f"{file['bytes']:,} bytes, sha256 `{file['sha256']}`", ""]
        failed = [f"{check['name']}: {check['detail']}" for check in verified["checks"] if not check["ok"]]
        lines += ["`edge-agent verify`: " + ("; ".join(failed) or "every check passed") + "."]
        if comparison := verified["comparison"]:
            lines += [
                f"Compared with the first, on {comparison['n_questions']} questions: KL of levels {comparison['level_kl']['mean']:.5f}, "
                f"changed levels {comparison['changed_levels']['share']:.1%}, changed routes {comparison['changed_routes']['share']:.1%}."
            ]
        yes = "as on the card" if example["reproduced"] else f"the card says {EXAMPLE_ANSWER[0]}, {EXAMPLE_ANSWER[1]}"
        lines += ["", f"Worked example: confidence {example['confidence']}, answer {example['answer']} ({yes}).", ""]
        lines += [f"| {file['n_questions']} questions | measured | 95 % interval | published | |", "|---|---|---|---|---|"]
        for row in file["rows"]:
            verdict = "reproduced" if row["reproduced"] else "**not reproduced**"
            interval = f"{row['low']:.1f} to {row['high']:.1f}"
            lines.append(f"| {row['figure']} | {row['measured']:.1f} | {interval} | {row['published']:.1f} | {verdict} |")
        lines.append("")
    return "\n".join(lines)


def fetch_questions(out: pathlib.Path, limit: int | None) -> pathlib.Path:
    """Fetch KazCulture, and write it as a file for `edge-agent eval`."""
    with Hub() as hub, ProgressLine() as progress:
        repo = hub.repo(DATASET, kind="datasets")
        kinds = (".csv", ".jsonl", ".parquet")
        chosen = next(
            ([f for f in repo.files if f.path.endswith(kind)] for kind in kinds if any(f.path.endswith(kind) for f in repo.files)), []
        )
        if not chosen:
            raise BadData(f"{DATASET} has no file of the kind {', '.join(kinds)} on the Hub; see {hub.endpoint}/datasets/{DATASET}.")
        rows: list[dict[str, Any]] = []
        for file in chosen:
            target = out / file.path.replace("/", "--")
            hub.fetch(repo, file, target, report=progress.transfer)
            rows += [question(row, f"{file.path}:{number}") for number, row in enumerate(read_rows(target), 1)]
    path = out / "questions.jsonl"
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows[:limit]), encoding="utf-8")
    return path


def read_rows(path: pathlib.Path) -> Iterator[dict[str, Any]]:
    """The rows of a data file, each as a dictionary by column."""
    if path.suffix == ".csv":
        with path.open(newline="", encoding="utf-8-sig") as file:
            yield from csv.DictReader(file)
    elif path.suffix == ".jsonl":
        yield from map(json.loads, path.read_text(encoding="utf-8").splitlines())
    else:
        try:
            from pyarrow import parquet
        except ImportError as error:
            raise BadData(f"'{path.name}' is a Parquet file; run `pip install pyarrow` and try again.") from error
        yield from parquet.read_table(path).to_pylist()


def question(row: dict[str, Any], place: str) -> dict[str, Any]:
    """A row of KazCulture (question, a, b, c, d, answer_label) as a question for `edge-agent eval`."""
    try:
        options = [str(row[column]) for column in "abcd"]
        label = row["answer_label"]
        return {"question": row["question"], "options": options, "answer": label, "domain": DOMAIN, "id": place[-100:]}
    except KeyError as error:
        raise BadData(f"{place} has no column {error}; the format of {DATASET} has changed.") from error


def _json(module: str, *arguments: str | None, may_end_with: tuple[int, ...] = (0,)) -> Any:
    """The JSON that a command prints. Its progress goes to stderr."""
    command = [sys.executable, "-m", module, *(argument for argument in arguments if argument is not None)]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=False)
    if done.returncode not in may_end_with:
        sys.exit(f"acceptance: `{' '.join(command[1:4])} ...` ended with {done.returncode}")
    return json.loads(done.stdout)


if __name__ == "__main__":
    main()

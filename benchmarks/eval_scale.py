"""One run of 16,200 questions, the published test size, killed once in the middle and taken up again.

    python -m benchmarks.eval_scale [--n 16200]

Prints how long both parts took, how many questions were kept when the process was killed, and whether a kept answer was asked again: each
row keeps the time of its own reading, which a second reading would change.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import sqlite3
import subprocess
import sys
import tempfile
import time

from models.recipe.bank.draw import draw_many


def main() -> None:
    """Draw the questions, run, kill, go on, and print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n", type=int, default=16_200)
    n = parser.parse_args().n
    with tempfile.TemporaryDirectory() as folder:
        questions, path = pathlib.Path(folder) / "questions.jsonl", pathlib.Path(folder) / "run.db"
        with questions.open("w", encoding="utf-8") as file:
            for item in draw_many("scale", n, "test"):
                row = {"question": item.stem, "options": list(item.options), "answer": item.letter, "domain": item.domain}
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
        command = [sys.executable, "-m", "edge_agent", "eval", str(questions), "--rows", str(path), "--json"]
        started = time.monotonic()
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        while process.poll() is None and len(_kept(path)) < n // 2:
            time.sleep(0.2)
        process.kill()
        process.wait()
        before, first_s = _kept(path), time.monotonic() - started
        started = time.monotonic()
        subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
        after, second_s = _kept(path), time.monotonic() - started
    again = sum(after[number] != row for number, row in before.items())
    print(f"killed after {first_s:.0f} s with {len(before)} of {n} questions kept; the rest took {second_s:.0f} s")
    print(f"{len(after)} questions answered, {again} of those kept were asked again")


def _kept(path: pathlib.Path) -> dict[int, tuple[str, float]]:
    """The rows in the file, by number."""
    try:
        rows = sqlite3.connect(f"file:{path}?mode=ro", uri=True).execute("SELECT number, reading, read_ms FROM answers").fetchall()
    except sqlite3.Error:
        return {}
    return {number: (reading, read_ms) for number, reading, read_ms in rows}


if __name__ == "__main__":
    main()

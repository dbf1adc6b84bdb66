"""Every example runs as a reader would run it."""

import os
import pathlib
import subprocess
import sys

from tests.support.cloud_server import LoopbackCloud
from tests.support.paths import DEMO, ROOT

UNSURE = '{"question": "A claim of 1995 is barred after 15 years. In which year?", "options": ["2008", "2010", "2012"]}\n'
SURE = '{"question": "What is 12 + 7?", "options": ["18", "19", "24"]}\n'


def run(name: str, *arguments: str, **environment: str) -> str:
    program = [sys.executable] if name.endswith(".py") else ["sh"]
    path = f"{pathlib.Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        [*program, str(ROOT / "examples" / name), *arguments],
        capture_output=True, text=True, timeout=120, check=False, env={**os.environ, "PATH": path, "PYTHONPATH": str(ROOT),
             "OMP_WAIT_POLICY": "passive", **environment},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_ask() -> None:
    assert run("ask.py") == "B. 19 (local, 100% sure)\n"
    assert "provisional" in run("ask.py", "A claim of 1995 is barred after 15 years. In which year?", "2008", "2010", "2012")


def test_draft_leaves_less_work_after_enter() -> None:
    at_once, typed = (int(line.split(": ")[1].split(" of ")[0]) for line in run("draft.py").splitlines())
    assert typed < at_once / 2


def test_kiosk_works_without_a_network_and_shows_settled_answers_later(tmp_path: pathlib.Path, cloud: LoopbackCloud) -> None:
    deck = tmp_path / "deck.jsonl"
    deck.write_text(SURE + UNSURE + '{"question": "Too long? ' + "x " * 4000 + '", "options": ["a", "b"]}\n')
    offline = run("kiosk.py", str(deck), "4", EDGE_AGENT_CLOUD_URL="http://127.0.0.1:9/v1")
    assert "  B. 19\n" in offline
    assert "  C. 2012  (provisional)\n" in offline
    assert "  cannot be answered: " in offline
    assert offline.count("What is 12 + 7?") == 2
    online = run("kiosk.py", str(deck), "1", EDGE_AGENT_CLOUD_URL=cloud.url)
    assert "  settled: C, the cloud says B: overturned\n" in online
    assert "settled" not in run("kiosk.py", str(deck), "1", EDGE_AGENT_CLOUD_URL=cloud.url)


def test_fleet(tmp_path: pathlib.Path) -> None:
    shown = run("fleet/roll-out.sh", str(DEMO), str(tmp_path / "fleet"))
    assert shown.count("75% is enough") == 2
    assert {path.name for path in (tmp_path / "fleet").iterdir()} == {"fleet.bundle", "kiosk-1", "kiosk-2"}


def test_every_example_is_run_by_a_test_or_by_make() -> None:
    sources = [ROOT / "Makefile", *(path for path in pathlib.Path(__file__).parent.glob("*.py"))]
    text = "".join(path.read_text() for path in sources)
    assert [
        path.name for path in (ROOT / "examples").rglob("*") if path.is_file() and "__pycache__" not in path.parts and path.name not in text
    ] == []

"""Random kills under load; `make test-slow KILLS=3000` does more of them."""

import os
import pathlib
import subprocess
import sys

from edge_agent.agent.agent import Agent
from tests.slow.crash_load import AcknowledgesEarly
from tests.support.mutation import catches
from tests.support.paths import ROOT

KILLS = int(os.environ.get("EDGE_AGENT_TEST_KILLS", "25"))


@catches(Agent, AcknowledgesEarly)
def test_random_kills_lose_nothing_acknowledged(part, tmp_path: pathlib.Path) -> None:
    """In a separate process, because the load forks."""
    program = (
        "import pathlib, sys\nfrom edge_agent.agent.agent import Agent\nfrom tests.slow.crash_load import AcknowledgesEarly, run\n"
        f"report = run(pathlib.Path(sys.argv[1]), {KILLS if part is Agent else 40}, 1, {part.__name__})\n"
        "print(report)\nsys.exit(not report.acceptable)"
    )
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr

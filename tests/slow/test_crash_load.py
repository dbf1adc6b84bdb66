"""Random kills under load; `EDGE_AGENT_TEST_KILLS=3000 make test-slow` makes it long."""

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
def test_nothing_acknowledged_is_lost_by_random_kills(part, tmp_path: pathlib.Path) -> None:
    """In a process of its own, since it forks."""
    program = (
        "import pathlib, sys\nfrom edge_agent.agent.agent import Agent\nfrom tests.slow.crash_load import AcknowledgesEarly, run\n"
        f"report = run(pathlib.Path(sys.argv[1]), {KILLS if part is Agent else 40}, 1, {part.__name__})\n"
        "print(report)\nsys.exit(not report.acceptable)"
    )
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr

"""The documented line makes bash complete commands and options."""

import os
import pathlib
import re
import subprocess
import sys

from tests.support.paths import ROOT


def test_documented_line_completes_in_bash(tmp_path: pathlib.Path) -> None:
    line = re.search(
        r'^eval "\$\(_EDGE_AGENT_COMPLETE=bash_source edge-agent\)"$', (ROOT / "docs" / "settings.md").read_text(), re.MULTILINE
    )
    assert line
    command = tmp_path / "edge-agent"  # as pip installs it
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m edge_agent "$@"\n')
    command.chmod(0o755)
    for typed, offered in (
        (["edge-agent", "con"], "config"),
        (["edge-agent", "ask", "--ba"], "--batch"),
        (["edge-agent", "config", "un"], "unset"),
    ):
        words = " ".join(f"'{word}'" for word in typed)
        ask = f"COMP_WORDS=({words}); COMP_CWORD={len(typed) - 1}; _edge_agent_completion edge-agent"
        script = f"{line[0]}\n{ask}; printf '%s\\n' \"${{COMPREPLY[@]}}\""
        environment = {**os.environ, "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
        done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=False, env=environment)
        assert offered in done.stdout.split(), done.stderr

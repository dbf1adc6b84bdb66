"""schemathesis, which nobody here wrote, calls every route of the OpenAPI document as the document allows, and as it forbids."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

from tests.support.paths import ROOT
from tests.support.serving import serving

pytest.importorskip("schemathesis")

OPERATOR = "0123456789abcdef-operator"
N_EXAMPLES = int(os.environ.get("EDGE_AGENT_TEST_EXAMPLES", "12"))
STREAMS = ("/edge/events",)
CONFIG = """
# No schema can say what fits the context or the 64 KiB of a body, or which words are options: what fits the schema may be refused.
[checks.positive_data_acceptance]
expected-statuses = ["2xx", "400", "401", "403", "404", "409", "413", "422", "429", "503"]
"""


def test_no_route_fails_or_answers_what_the_document_does_not_say(tmp_path: pathlib.Path) -> None:
    """All checks of the tool, the token of the operator, streams apart."""
    token = tmp_path / "operator"
    token.write_text(OPERATOR)
    token.chmod(0o600)
    (tmp_path / "schemathesis.toml").write_text(CONFIG)
    report = tmp_path / "report.xml"
    with serving(tmp_path / "home", "--operator-token-file", str(token)) as server:
        command = [sys.executable, "-m", "schemathesis.cli", "--config-file", str(tmp_path / "schemathesis.toml"), "run"]
        command += [f"{server.url}/openapi.json", "--checks", "all", "--max-examples", str(N_EXAMPLES), "--seed", "1", "--no-shrink"]
        command += ["--header", f"Authorization: Bearer {OPERATOR}", "--report", "junit", "--report-junit-path", str(report)]
        command += ["--request-timeout", "70", "--suppress-health-check", "all", "--no-color", "--warnings", "off"]
        command += [part for path in STREAMS for part in ("--exclude-path", path)]
        found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=600)
        assert found.returncode == 0, found.stdout[-12_000:] + found.stderr[-2000:]
        with server.client(OPERATOR) as client:
            paths = json.loads(client.get("/openapi.json").content)["paths"]
            assert client.get("/health").status_code == 200
        for path in paths:
            assert path in STREAMS or path in report.read_text()
    assert not server.complaints(), server.said()

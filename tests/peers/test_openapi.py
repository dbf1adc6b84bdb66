"""schemathesis, which nobody here wrote, calls every route of the OpenAPI document as the document allows, and as it forbids."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

from tests.support.paths import ROOT
from tests.support.serving import serving, token_file

pytest.importorskip("schemathesis")

OPERATOR = "0123456789abcdef-operator"
N_EXAMPLES = int(os.environ.get("EDGE_AGENT_TEST_EXAMPLES", "12"))
STREAMS = ("/edge/events",)
CONFIG = """
[checks]
max_response_time = 70  # seconds: a client may wait up to a minute for a decision
# No schema can say what fits the model's context or 64 KiB, which words are options, or whether there is a cloud: a request that fits
# the schema may be refused.
[checks.positive_data_acceptance]
expected-statuses = ["2xx", "400", "401", "403", "404", "409", "413", "422", "429", "502", "503"]
[checks.negative_data_rejection]  # 414: a parameter that is far too long is refused with the whole address
expected-statuses = ["400", "401", "403", "404", "405", "406", "409", "413", "414", "415", "422", "428", "429", "431", "503"]
[checks.not_a_server_error]
expected-statuses = ["2xx", "3xx", "4xx", "502", "503"]
"""


def test_no_route_fails_or_answers_what_the_document_does_not_say(tmp_path: pathlib.Path) -> None:
    """All checks of the tool, the token of the operator, streams apart."""
    token = token_file(tmp_path / "operator", OPERATOR)
    (tmp_path / "schemathesis.toml").write_text(CONFIG)
    report = tmp_path / "report.xml"
    with serving(tmp_path / "home", "--operator-token-file", token) as server:
        command = [sys.executable, "-m", "schemathesis.cli", "--config-file", str(tmp_path / "schemathesis.toml"), "run"]
        command += [f"{server.url}/openapi.json", "--checks", "all", "--max-examples", str(N_EXAMPLES), "--seed", "1", "--no-shrink"]
        command += ["--header", f"Authorization: Bearer {OPERATOR}", "--report", "junit", "--report-junit-path", str(report)]
        command += ["--request-timeout", "75", "--suppress-health-check", "all", "--no-color", "--warnings", "off"]
        command += [part for path in STREAMS for part in ("--exclude-path", path)]
        found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=600)
        assert found.returncode == 0, found.stdout[-12_000:] + found.stderr[-2000:]
        with server.client(OPERATOR) as client:
            paths = json.loads(client.get("/openapi.json").content)["paths"]
            assert client.get("/health").status_code == 200
        for path in paths:
            assert path in STREAMS or path in report.read_text()
    assert not server.complaints(), server.said()

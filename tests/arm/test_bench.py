"""`edge-agent bench --share` on a board: what its owner is asked to send in. The times of an emulated board mean nothing."""

import json
import os

import pytest

from tests.arm.processors import VARIANTS
from tests.support.command_line import run
from tests.support.paths import DEMO

CPU = os.environ["QEMU_CPU"]


@pytest.mark.skipif("EDGE_AGENT_TEST_ARM_ALL" not in os.environ, reason="it takes two minutes; make test-arm ALL=1 runs it")
def test_share_names_the_variant_and_the_board() -> None:
    done = run("bench", str(DEMO), "--share", "--repeats", "1", "--threads", "1", timeout_s=600)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["variant"] == VARIANTS[CPU] and found["architecture"] == "aarch64"
    assert {"board", "processor", "governor", "throttled", "memory_mb"} <= set(found)  # null where the system does not tell
    (file,) = found["files"]
    assert file["model"] == "FogGen-demo" and file["quantization"] == "Q8_0" and file["decision_p95_ms"] >= file["decision_p50_ms"] > 0
    assert file["prefill_per_s"] > 0 and len(done.stdout) < 2000

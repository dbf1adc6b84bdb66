"""A model file damaged everywhere: 64 truncations and 1,000 flipped bytes, each one clear answer, within seconds, with this
process alive. Slow, since what the bounds check lets through is opened in a process of its own: `make test-slow`.
"""

import pathlib
import random
import time

import pytest

from edge_agent.core.question import Question
from edge_agent.measure.verify import Verified, verify_model
from edge_agent.model.catalog import ModelFiles
from tests.support.gguf_bytes import header_bytes
from tests.support.paths import DEMO

QUESTION = [Question("What is 12 + 7?", ("18", "19", "24"))]
SECONDS = 120  # the bound of one answer on a busy machine; a few are usual


def answered(data: bytes | bytearray, folder: pathlib.Path) -> Verified:
    path = folder / "x.gguf"
    path.write_bytes(data)
    started = time.monotonic()
    found = verify_model(ModelFiles(path), folder, QUESTION)
    assert time.monotonic() - started < SECONDS
    assert sum(not check.ok for check in found.checks) <= 1 and all(check.ok for check in found.checks[:-1])
    assert all("\n" not in check.detail for check in found.checks)
    assert [entry.name for entry in folder.iterdir()] == ["x.gguf"]
    return found


def test_truncated_at_64_places(tmp_path: pathlib.Path) -> None:
    whole, rng = DEMO.read_bytes(), random.Random(64)
    in_header = [rng.randrange(header_bytes()[1]) for _ in range(32)]
    for length in [*in_header, *(rng.randrange(len(whole) - 64) for _ in range(32))]:
        found = answered(whole[:length], tmp_path)
        assert not found.ok and found.checks[-1].name == "bounds"


@pytest.mark.parametrize("part", range(10))
def test_100_flips_in_hyper_parameters_and_header(tmp_path: pathlib.Path, part: int) -> None:
    """Half of them before the tokenizer, where the hyper-parameters are; each is refused, or answers one question."""
    whole, rng = bytearray(DEMO.read_bytes()), random.Random(part)
    tokenizer, end = header_bytes()
    for number in range(100):
        at = rng.randrange(4, tokenizer if number % 2 else end)
        old, whole[at] = whole[at], whole[at] ^ rng.randrange(1, 256)
        answered(whole, tmp_path)
        whole[at] = old

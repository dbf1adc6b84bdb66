"""A damaged model file: 64 truncations and 1,000 changed bytes. Each gets one clear result within seconds, and this process survives.

Slow, because a file that passes the bounds check is opened in a separate process.
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
LIMIT_S = 120  # for one file on a busy machine; a few seconds are usual


def verified(data: bytes | bytearray, folder: pathlib.Path) -> Verified:
    """Verify a file with these bytes; check that only the last step may fail, in time, and that no other file is left."""
    path = folder / "x.gguf"
    path.write_bytes(data)
    started = time.monotonic()
    found = verify_model(ModelFiles(path), folder, QUESTION)
    assert time.monotonic() - started < LIMIT_S
    assert sum(not check.ok for check in found.checks) <= 1 and all(check.ok for check in found.checks[:-1])
    assert all("\n" not in check.detail for check in found.checks)
    assert [entry.name for entry in folder.iterdir()] == ["x.gguf"]
    return found


def test_file_truncated_at_64_places_is_refused(tmp_path: pathlib.Path) -> None:
    whole, rng = DEMO.read_bytes(), random.Random(64)
    in_header = [rng.randrange(header_bytes()[1]) for _ in range(32)]
    for length in [*in_header, *(rng.randrange(len(whole) - 64) for _ in range(32))]:
        found = verified(whole[:length], tmp_path)
        assert not found.ok and found.checks[-1].name == "bounds"


@pytest.mark.parametrize("part", range(10))
def test_file_with_a_changed_byte_is_refused_or_answers(tmp_path: pathlib.Path, part: int) -> None:
    """100 bytes of the header each time, half of them in the hyper-parameters, which come before the tokenizer."""
    whole, rng = bytearray(DEMO.read_bytes()), random.Random(part)
    tokenizer, end = header_bytes()
    for number in range(100):
        at = rng.randrange(4, tokenizer if number % 2 else end)
        old, whole[at] = whole[at], whole[at] ^ rng.randrange(1, 256)
        verified(whole, tmp_path)
        whole[at] = old

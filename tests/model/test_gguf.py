"""The bounds check of a stranger's model file."""

import pathlib
import random
import struct

import pytest

from edge_agent.core.errors import ModelMissing, ModelRefused
from edge_agent.model.gguf import read_header
from edge_agent.model.profile import from_metadata
from tests.support.command_line import run
from tests.support.paths import DEMO


def test_header_of_the_demo_model() -> None:
    header = read_header(DEMO)
    assert header.architecture == "qwen3" and header.quantization == "Q8_0"
    assert header.metadata["foggen.version"] == 1
    assert "tokenizer.ggml.tokens" not in header.metadata  # arrays are skipped
    assert header.n_tensors == 57


def test_missing_file(tmp_path: pathlib.Path) -> None:
    with pytest.raises(ModelMissing, match="check the path"):
        read_header(tmp_path / "none.gguf")
    with pytest.raises(ModelMissing):
        read_header(tmp_path)


@pytest.mark.parametrize("content", [b"", b"GG", b"GGUF", b"PK\x03\x04", b"GGUF" + struct.pack("<I", 99) + b"\0" * 32])
def test_file_that_is_not_gguf_is_refused(tmp_path: pathlib.Path, content: bytes) -> None:
    file = tmp_path / "x.gguf"
    file.write_bytes(content)
    with pytest.raises(ModelRefused):
        read_header(file)


@pytest.mark.parametrize("share", [i / 16 for i in range(16)])
def test_truncated_anywhere_is_refused(tmp_path: pathlib.Path, share: float) -> None:
    whole = DEMO.read_bytes()
    file = tmp_path / "x.gguf"
    file.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(ModelRefused):
        read_header(file)


def test_one_byte_short_is_refused(tmp_path: pathlib.Path) -> None:
    file = tmp_path / "x.gguf"
    file.write_bytes(DEMO.read_bytes()[:-33])  # past the padding behind the last tensor
    with pytest.raises(ModelRefused, match="truncated"):
        read_header(file)


def test_flipped_header_bytes_end_in_a_refusal_or_a_header(tmp_path: pathlib.Path) -> None:
    """300 random flips in the first 64 KiB: never another exception, never a hang."""
    whole, rng, file = bytearray(DEMO.read_bytes()), random.Random(0), tmp_path / "x.gguf"
    refused = 0
    for _ in range(300):
        at, old = rng.randrange(4, 65536), 0
        old, whole[at] = whole[at], rng.randrange(256)
        file.write_bytes(whole)
        try:
            read_header(file)
        except ModelRefused as error:
            refused += 1
            assert "\n" not in str(error)
        whole[at] = old
    assert refused > 10


def test_false_counts_are_refused(tmp_path: pathlib.Path) -> None:
    file = tmp_path / "x.gguf"
    for n_tensors, n_pairs in [(2**63, 0), (0, 2**63), (5, 0), (0, 5), (1 << 21, 0)]:
        file.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, n_tensors, n_pairs) + b"\xff" * 64)
        with pytest.raises(ModelRefused):
            read_header(file)


def test_array_of_arrays_and_huge_array_are_refused(tmp_path: pathlib.Path) -> None:
    file = tmp_path / "x.gguf"
    for kind, count in [(9, 1), (8, 2**60), (4, 2**62), (77, 1)]:
        pair = struct.pack("<Q", 1) + b"k" + struct.pack("<IIQ", 9, kind, count)
        file.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + pair + b"\0" * 64)
        with pytest.raises(ModelRefused):
            read_header(file)


@pytest.mark.parametrize("key", [b"foggen.levels", b"foggen.answer_kind", b"foggen.system_message", b"tokenizer.chat_template"])
def test_list_in_place_of_a_value_is_refused(tmp_path: pathlib.Path, key: bytes) -> None:
    """Skipped like a vocabulary, it would count as not there: other levels than the model prints, or a chat model without its shape."""
    file = tmp_path / "x.gguf"
    text = struct.pack("<Q", 3) + b"0.5"
    file.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + struct.pack("<Q", len(key)) + key + struct.pack("<IIQ", 9, 8, 1) + text)
    with pytest.raises(ModelRefused, match="where one value is meant"):
        read_header(file)


def pair(key: bytes, value: bytes) -> bytes:
    return struct.pack("<Q", len(key)) + key + struct.pack("<IQ", 8, len(value)) + value


def test_names_in_an_untrusted_file_cannot_rewrite_a_terminal(tmp_path: pathlib.Path) -> None:
    """Keys, architectures and paths may hold anything; neither the exception nor the terminal shows control characters."""
    file = tmp_path / "x\x1b[2J.gguf"
    for pairs in ([pair(b"\x1b[2Jk\ny", b"a")] * 2, [pair(b"general.architecture", b"\x1b]0;\x07" + b"q\n" * 1000)]):
        file.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 0, len(pairs)) + b"".join(pairs))
        with pytest.raises(ModelRefused) as caught:
            from_metadata(read_header(file).metadata)
        assert "\x1b" not in str(caught.value).replace(str(file), "") and "\n" not in str(caught.value) and len(str(caught.value)) < 500
        done = run("ask", "Q", "--option", "a", "--option", "b", "--model", str(file))
        assert done.returncode == 66 and not set("\x1b\x07") & set(done.stderr) and len(done.stderr.splitlines()) == 1


def test_strings_that_would_fill_the_memory_are_refused_unread(tmp_path: pathlib.Path) -> None:
    file, gigabyte = tmp_path / "x.gguf", 1 << 30
    for head in (pair(b"k", b""), pair(b"k", b"x" * 8) + pair(b"l", b"")):
        file.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 0, 2) + head[:-8] + struct.pack("<Q", gigabyte))
        with file.open("rb+") as opened:
            opened.truncate(2 * gigabyte)  # a sparse file: the data takes no disk space
        with pytest.raises(ModelRefused, match=f"a string of {gigabyte} bytes"):
            read_header(file)

"""How much memory a service with a model may take."""

import pathlib
import struct

import pytest

from edge_agent.core.errors import ModelMissing, ModelRefused
from edge_agent.engine.llama import Options
from edge_agent.model import memory
from edge_agent.model.catalog import ModelFiles
from tests.support.paths import DEMO

QWEN_06B = {
    "general.architecture": "qwen3", "qwen3.block_count": 28, "qwen3.embedding_length": 1024, "qwen3.attention.head_count": 16,
    "qwen3.attention.head_count_kv": 8, "qwen3.attention.key_length": 128, "qwen3.attention.value_length": 128,
}  # fmt: skip


def gguf(metadata: dict[str, object]) -> bytes:
    """The bytes of a GGUF with this metadata and no tensors."""

    def text(value: str) -> bytes:
        return struct.pack("<Q", len(value)) + value.encode()

    def typed(value: object) -> bytes:
        if isinstance(value, bool):
            return struct.pack("<I?", 7, value)
        if isinstance(value, int):
            return struct.pack("<Iq", 11, value)
        return struct.pack("<Id", 12, value) if isinstance(value, float) else struct.pack("<I", 8) + text(str(value))

    pairs = b"".join(text(key) + typed(value) for key, value in metadata.items())
    return b"GGUF" + struct.pack("<IQQ", 3, 0, len(metadata)) + pairs


def shaped(path: pathlib.Path, **changed: object) -> pathlib.Path:
    path.write_bytes(gguf({**QWEN_06B, **{name.replace("__", "."): value for name, value in changed.items()}}))
    return path


def test_the_cache_is_that_of_the_shape(tmp_path: pathlib.Path) -> None:
    assert memory.kv_bytes_per_token(shaped(tmp_path / "a.gguf")) == 114_688
    assert memory.kv_bytes_per_token(DEMO) == 5 * 2 * (64 + 64) * 2


def test_a_06b_model_at_q4_k_m_may_take_1248_mib(tmp_path: pathlib.Path) -> None:
    path = shaped(tmp_path / "a.gguf")
    with path.open("ab") as file:
        file.truncate(396_704_832)  # the size of the real file; the rest is a hole
    assert memory.needed_bytes(ModelFiles(path)) == 1248 << 20


def test_a_file_that_does_not_say_its_head_sizes_has_those_of_its_width(tmp_path: pathlib.Path) -> None:
    bare = {key: value for key, value in QWEN_06B.items() if "head_count_kv" not in key and not key.endswith("_length")}
    path = tmp_path / "a.gguf"
    path.write_bytes(gguf({**bare, "qwen3.embedding_length": 1024}))
    assert memory.kv_bytes_per_token(path) == 28 * 16 * (64 + 64) * 2


@pytest.mark.parametrize("value", [0, -1, 1 << 40, "28", 2.5, True])
def test_a_shape_that_is_none_is_refused(value: object, tmp_path: pathlib.Path) -> None:
    with pytest.raises(ModelRefused, match="block_count"):
        memory.kv_bytes_per_token(shaped(tmp_path / "a.gguf", qwen3__block_count=value))


def test_a_file_that_is_not_there_is_missing(tmp_path: pathlib.Path) -> None:
    with pytest.raises(ModelMissing):
        memory.kv_bytes_per_token(tmp_path / "none.gguf")


def test_an_adapter_counts_too(tmp_path: pathlib.Path) -> None:
    adapter = tmp_path / "adapter.gguf"
    adapter.write_bytes(b"x" * (32 << 20))
    assert memory.needed_bytes(ModelFiles(DEMO, adapter)) - memory.needed_bytes(ModelFiles(DEMO)) == 64 << 20


def test_the_context_is_the_engines() -> None:
    assert Options().n_ctx == memory.N_CTX

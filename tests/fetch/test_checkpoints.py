"""Checkpoints for the converter: which files are fetched, at which commit, and once."""

import pathlib

import pytest

from edge_agent.core.errors import DownloadFailed, ModelMissing, ModelRefused
from edge_agent.fetch.checkpoints import checkpoint_folder
from edge_agent.fetch.connection import NetworkSettings
from edge_agent.fetch.download import Downloader
from edge_agent.fetch.hub import Hub
from tests.support.hub_server import LoopbackHub

CHECKPOINT = {
    "config.json": b'{"architectures": ["Qwen3ForCausalLM"]}', "tokenizer.json": b"{}", "model.safetensors.index.json": b"{}",
    "model-00001-of-00002.safetensors": b"1" * 300_000, "model-00002-of-00002.safetensors": b"2" * 300_000,
    "pytorch_model.bin": b"pickle", "README.md": b"card", "onnx/model.onnx": b"other", "original/model.safetensors": b"other",
}  # fmt: skip


def checkpoint(server: LoopbackHub, folder: pathlib.Path, source: str = "a/b", **environment: str) -> pathlib.Path:
    hub = Hub({"HF_ENDPOINT": server.url, **environment}, Downloader(NetworkSettings({}), lambda s: None))
    return checkpoint_folder(source, folder=folder, the_hub=hub)


def test_checkpoint_is_fetched_once_with_what_a_conversion_reads(server: LoopbackHub, folder: pathlib.Path) -> None:
    commit = server.publish("a/b", CHECKPOINT)
    server.large.drops = [100_000]
    here = checkpoint(server, folder)
    assert here == folder / "a" / commit / "b"
    wanted = {path: data for path, data in CHECKPOINT.items() if "/" not in path and not path.endswith((".bin", ".md"))}
    assert {path.name: path.read_bytes() for path in here.iterdir()} == wanted
    n = len(server.requests)
    assert checkpoint(server, folder) == checkpoint(server, folder, HF_HUB_OFFLINE="1") == here and len(server.requests) == n


def test_interrupted_checkpoint_continues_with_the_next_file(server: LoopbackHub, folder: pathlib.Path) -> None:
    server.publish("a/b", CHECKPOINT)
    server.large.drops = [300_000, 0, 0, 0, 0, 0]
    with pytest.raises(DownloadFailed):
        checkpoint(server, folder)
    checkpoint(server, folder)
    assert server.large.sent == 600_000


def test_checkpoint_keeps_its_commit_and_names_another(server: LoopbackHub, folder: pathlib.Path) -> None:
    first = server.publish("a/b", CHECKPOINT)
    assert checkpoint(server, folder).parent.name == first
    second = server.publish("a/b", CHECKPOINT | {"config.json": b"{}"})
    (folder / "a" / first / "b" / "config.json").unlink()
    assert checkpoint(server, folder).parent.name == first
    assert checkpoint(server, folder, f"a/b@{second}").parent.name == second
    assert (
        checkpoint(server, folder).parent.name == first
        and checkpoint(server, folder, f"a/b@{second}", HF_HUB_OFFLINE="1").parent.name == second
    )


def test_checkpoint_may_be_a_folder_or_a_catalogue_name(server: LoopbackHub, folder: pathlib.Path, tmp_path: pathlib.Path) -> None:
    assert checkpoint(server, folder, str(tmp_path)) == tmp_path
    server.publish("issai/foggen", CHECKPOINT)
    assert checkpoint(server, folder, "foggen").parents[1] == folder / "issai"
    for nothing in ("nothing", "~nobody-of-this-name/x", "x" * 300):
        with pytest.raises(ModelMissing, match="neither a folder"):
            checkpoint(server, folder, nothing)
    (tmp_path / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    with pytest.raises(ModelRefused, match="git lfs pull"):
        checkpoint(server, folder, str(tmp_path))
    server.publish("a/pickle", {"pytorch_model.bin": b"x", "config.json": b"{}"})
    with pytest.raises(ModelMissing, match="has no safetensors"):
        checkpoint(server, folder, "a/pickle")

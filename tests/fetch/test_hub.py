"""The Hub's routes: its refusals, the token, lists that are a stranger's, and checkpoints for the converter."""

import json
import pathlib

import pytest

from edge_agent.core.errors import DownloadFailed, ModelError, ModelMissing, ModelRefused
from edge_agent.fetch.checkpoints import checkpoint_folder
from edge_agent.fetch.download import Downloader
from edge_agent.fetch.hub import Hub, is_safe, parse
from tests.support.hub_server import LoopbackHub
from tests.support.pulls import MODEL, NAME, Pulls, left_over


def test_token_reaches_the_hub_and_no_other_host(server: LoopbackHub, folder: pathlib.Path) -> None:
    server.tokens.add("hf_canary")
    server.publish("a/b", {NAME: MODEL}, gated=True)
    pulls = Pulls(server, folder, HF_TOKEN="hf_canary")
    assert pulls().path.read_bytes() == MODEL
    assert {request.headers["Authorization"] for request in server.requests} == {"Bearer hf_canary"}
    assert all("Authorization" not in request.headers for request in server.large.requests)
    assert all(b"hf_canary" not in path.read_bytes() for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize(
    ("kind", "token", "words"),
    [
        ({"gated": True}, None, "people who accept its licence: sign in"),
        ({"private": True}, None, "set HF_TOKEN if it is private"),
        ({}, "hf_wrong", "does not know your token"),
    ],
)
def test_refusal_says_what_to_do(server: LoopbackHub, folder: pathlib.Path, kind: dict, token: str | None, words: str) -> None:
    server.publish("a/b", {NAME: MODEL}, **kind)
    with pytest.raises(ModelError, match=words) as caught:
        Pulls(server, folder, **({"HF_TOKEN": token} if token else {}))()
    assert "\n" not in str(caught.value) and "hf_wrong" not in str(caught.value) and caught.value.exit_code == 66


# --- what the Hub says is a stranger's


@pytest.mark.parametrize(
    "path", ["../x.gguf", "/etc/x.gguf", "a\\..\\x.gguf", "a/../../x.gguf", "a//x.gguf", "x\n.gguf", "", "C:x.gguf", "x" * 501]
)
def test_path_that_leaves_the_folder_is_refused(server: LoopbackHub, pulls: Pulls, folder: pathlib.Path, path: str) -> None:
    assert not is_safe(path)
    server.lies[NAME] = {"rfilename": path}
    with pytest.raises(DownloadFailed, match="not a plain path"):
        pulls()
    assert left_over(folder) == []


NO_LISTS = [
    b"", b"[]", b"{}", b'{"sha": "x", "siblings": []}', b'{"sha": 1}', b"[" * 100_000,
    json.dumps({"sha": "a" * 40, "siblings": {}}).encode(), json.dumps({"sha": "a" * 40, "siblings": [1]}).encode(),
]  # fmt: skip


@pytest.mark.parametrize("answer", NO_LISTS, ids=len)
def test_answer_that_is_no_list_of_files_is_refused(server: LoopbackHub, pulls: Pulls, answer: bytes) -> None:
    server.raw = answer
    with pytest.raises(DownloadFailed):
        pulls()


def test_names_of_repositories() -> None:
    assert parse("issai/foggen") == ("issai/foggen", None) and parse("a/b@main") == ("a/b", "main")
    for text in ("foggen", "a/b/c", "../b", "a/..", "a/b@", "a b/c", "/b", "a/b@x/y", ".a/b"):
        assert parse(text) is None


# --- checkpoints for the converter


CHECKPOINT = {
    "config.json": b'{"architectures": ["Qwen3ForCausalLM"]}', "tokenizer.json": b"{}", "model.safetensors.index.json": b"{}",
    "model-00001-of-00002.safetensors": b"1" * 300_000, "model-00002-of-00002.safetensors": b"2" * 300_000,
    "pytorch_model.bin": b"pickle", "README.md": b"card", "onnx/model.onnx": b"other", "original/model.safetensors": b"other",
}  # fmt: skip


def checkpoint(server: LoopbackHub, folder: pathlib.Path, source: str = "a/b", **environment: str) -> pathlib.Path:
    hub = Hub({"HF_ENDPOINT": server.url, **environment}, Downloader(pause=lambda s: None))
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


def test_interrupted_checkpoint_goes_on_with_the_next_file(server: LoopbackHub, folder: pathlib.Path) -> None:
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

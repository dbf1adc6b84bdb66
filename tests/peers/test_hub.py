"""The Hub on loopback is one for the Hub's own client, too, and both clients fetch the same."""

import pathlib

import pytest

from edge_agent.fetch.checkpoints import checkpoint_folder
from edge_agent.fetch.download import Downloader
from edge_agent.fetch.hub import Hub
from edge_agent.fetch.pull import Puller
from tests.support.hub_server import LoopbackHub

huggingface_hub = pytest.importorskip("huggingface_hub")

FILES = {
    "config.json": b'{"architectures": ["Qwen3ForCausalLM"]}',
    "tokenizer.json": b"{}" * 1000,
    "model.safetensors": bytes(range(256)) * 1000,
    "FogGen-0.6B-Q8_0.gguf": b"GGUF" + bytes(300_000),
}


def test_both_clients_fetch_the_same_files_at_the_same_commit(tmp_path: pathlib.Path) -> None:
    server = LoopbackHub()
    try:
        server.tokens.add("hf_token")
        commit = server.publish("issai/foggen", FILES, gated=True)
        theirs = pathlib.Path(
            huggingface_hub.snapshot_download("issai/foggen", endpoint=server.url, token="hf_token", cache_dir=tmp_path / "theirs")
        )
        hub = Hub({"HF_ENDPOINT": server.url, "HF_TOKEN": "hf_token"}, Downloader())
        model = Puller(tmp_path / "ours", hub, check_file=lambda path: None).pull("issai/foggen")
        ours = checkpoint_folder("issai/foggen", folder=tmp_path / "checkpoints", the_hub=hub)
        assert theirs.name == ours.parent.name == model.revision == commit
        assert {path.name: path.read_bytes() for path in theirs.iterdir()} == FILES
        assert {path.name: path.read_bytes() for path in [*ours.iterdir(), model.path]} == FILES
        with pytest.raises(huggingface_hub.errors.GatedRepoError):
            huggingface_hub.hf_hub_download("issai/foggen", "config.json", endpoint=server.url, token=False, cache_dir=tmp_path / "other")
        with pytest.raises(huggingface_hub.errors.RepositoryNotFoundError):
            huggingface_hub.HfApi(server.url).model_info("issai/nothing", token=False)
    finally:
        server.stop()

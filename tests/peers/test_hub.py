"""The Hub on loopback is one for the Hub's own client, too; both clients fetch the same, and ours continues after a kill."""

import os
import pathlib
import signal
import subprocess
import sys
import threading
import time

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


FILE = b"GGUF" + bytes(range(256)) * 80_000  # 20 MB
THEIRS = "import huggingface_hub, sys; huggingface_hub.hf_hub_download('a/b', 'x.gguf', endpoint=sys.argv[1], local_dir='.')"


@pytest.mark.parametrize(
    ("command", "bytes_in_all"), [(["-m", "edge_agent", "pull", "a/b"], 1.01), (["-c", THEIRS], 1.6)], ids=["edge-agent", "huggingface-hub"]
)
def test_bytes_sent_when_a_download_is_killed_at_60_percent(
    command: list[str], bytes_in_all: float, tmp_path: pathlib.Path, home: pathlib.Path
) -> None:
    """Why the bytes of a file are ours to fetch: if the library resumes one day, this test fails, and `download` can go."""
    server = LoopbackHub()
    try:
        server.publish("a/b", {"x.gguf": FILE})
        sent, killed, at = threading.Event(), threading.Event(), len(FILE) * 6 // 10
        server.large.drops, server.large.before_drop = [at], lambda: (sent.set(), killed.wait(60))
        arguments = [sys.executable, *command, *([server.url] if command[0] == "-c" else [])]
        environment = {**os.environ, "HF_ENDPOINT": server.url, "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HOME": str(tmp_path / "hf")}
        process = subprocess.Popen(arguments, cwd=tmp_path, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        assert sent.wait(30)
        time.sleep(1)  # for what is on its way to the disk
        process.send_signal(signal.SIGKILL)
        process.wait()
        killed.set()
        assert server.large.sent == at
        subprocess.run(arguments, cwd=tmp_path, env=environment, capture_output=True, timeout=60, check=False)
        assert server.large.sent / len(FILE) == pytest.approx(bytes_in_all, abs=0.011)
    finally:
        server.stop()

"""Which file `--file` means, what is refused before it is fetched, and how a model is made where the Hub cannot be asked."""

import json
import pathlib
import struct

import pytest

from edge_agent.core.errors import DownloadFailed, ModelMissing, ModelRefused
from edge_agent.fetch import bundle
from edge_agent.fetch.choice import MustBeMade, means
from edge_agent.fetch.download import HEAD_BYTES
from edge_agent.model.profile import ARCHITECTURES
from tests.support.command_line import run
from tests.support.gguf_files import adapter_for, gguf_with, of_architecture
from tests.support.hub_server import LoopbackHub
from tests.support.paths import DEMO
from tests.support.pulls import MODEL, Pulls, left_over


@pytest.mark.parametrize(
    "path",
    ["Fog.Q8_0.gguf", "fog_Q8_0.gguf", "fog-q8_0.gguf", "Fog-Q8_0.bundle", "Q8_0.gguf", "a/b/Fog.Q8_0.gguf", "fog-UD-Q8_0.gguf",
     "Fog.Q8_0-00001-of-00002.gguf", "k-Q8_0.bundle!model.gguf"],
)  # fmt: skip
@pytest.mark.parametrize("file", ["Q8_0", "q8_0"])
def test_quantization_is_found_however_the_file_is_called(path: str, file: str) -> None:
    assert means(path, file) and not means(path, "Q4_K_M")


@pytest.mark.parametrize(
    ("path", "file", "is_meant"),
    [
        ("sub/Fog.Q8_0.gguf", "Fog.Q8_0", True),
        ("sub/Fog.Q8_0.gguf", "fog.q8_0.gguf", True),
        ("sub/Fog.Q8_0.gguf", "sub/Fog.Q8_0.gguf", True),
        ("Fog-IQ4_XS.gguf", "IQ4_XS", True),
        ("Fog-IQ4_XS.gguf", "Q4_XS", False),
        ("Fog-Q4_K_M.gguf", "Q4_K", False),
        ("Fog-Q4_K_M.gguf", "M", False),
        ("Fog-Q4_K_M.gguf", "_M", False),
        ("Fog-BF16.gguf", "F16", False),
        ("Fog-BF16.gguf", "bf16", True),
        ("FogQ8_0.gguf", "Q8_0", False),
        ("Fog.Q8.0.gguf", "Q8_0", False),
        ("Fog-0.6B.gguf", "0.6B", False),
    ],
)
def test_what_a_file_is_not_called(path: str, file: str, is_meant: bool) -> None:
    assert means(path, file) is is_meant


def test_file_is_pulled_by_a_quantization_after_a_dot(server: LoopbackHub, pulls: Pulls, folder: pathlib.Path) -> None:
    server.publish("a/c", {"Fog.Q8_0.gguf": MODEL, "Fog.Q4_K_M.gguf": MODEL + b"4", "fog_Q5_K_M.gguf": MODEL + b"5"})
    assert pulls("a/c", "Q8_0").path == folder / "Fog.Q8_0.gguf" and not pulls("a/c", "q8_0").is_new
    assert pulls("a/c", "Q5_K_M").path == folder / "fog_Q5_K_M.gguf"


def test_exact_name_beats_the_same_name_in_another_case(server: LoopbackHub, pulls: Pulls, folder: pathlib.Path) -> None:
    server.publish("a/c", {"x.gguf": MODEL, "X.gguf": MODEL + b"2"})
    assert pulls("a/c", "X.gguf").path == folder / "X.gguf"


def test_part_of_a_model_is_refused_before_it_is_fetched(server: LoopbackHub, pulls: Pulls) -> None:
    server.publish("a/c", {"x-Q8_0-00001-of-00002.gguf": MODEL})
    with pytest.raises(ModelRefused, match="one of 2 parts"):
        pulls("a/c", "Q8_0")
    assert server.large.requests == []


# --- architectures


@pytest.mark.parametrize("what", ["a/c", "address", "bundle"])
def test_architecture_that_does_not_run_is_refused_after_the_first_bytes(
    what: str, server: LoopbackHub, pulls: Pulls, folder: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    data = of_architecture("mamba")
    server.publish("a/c", {"tiny.gguf": data})
    server.large.blobs["files/tiny.gguf"] = data
    if what == "bundle":
        packed, there = tmp_path / "x.bundle", tmp_path / "foreign.gguf"
        there.write_bytes(DEMO.read_bytes())
        bundle.pack(packed, there, {})
        length = struct.pack("<Q", 5)
        server.publish("a/c", {"x.bundle": packed.read_bytes().replace(length + b"qwen3", length + b"mamba", 1)})
    target = f"{server.large.url}/files/tiny.gguf?signature=1" if what == "address" else "a/c"
    with pytest.raises(ModelRefused, match=r"'mamba', and edge-agent runs only .*qwen3.*--any-architecture") as caught:
        pulls(target)
    assert all(name in str(caught.value) for name in ARCHITECTURES)
    assert left_over(folder) == [] and pulls.checked == []
    assert pulls.seen[-1].n_bytes < HEAD_BYTES + 200_000 < len(data)


def test_architecture_that_does_not_run_is_kept_when_somebody_says_so(server: LoopbackHub, home: pathlib.Path) -> None:
    server.publish("a/c", {"tiny.gguf": of_architecture("mamba")})
    done = run("pull", "a/c", HF_ENDPOINT=server.url)
    assert done.returncode == 66 and "'mamba'" in done.stderr and left_over(home / "models") == []
    done = run("pull", "a/c", "--any-architecture", HF_ENDPOINT=server.url)
    assert done.returncode == 0 and "cannot run here" in done.stderr, done.stderr
    assert left_over(home / "models") == ["pulled.json", "tiny.gguf"]
    asked = run("ask", "What is 2 + 2?", "--option", "3", "--option", "4", "--model", "tiny")
    assert asked.returncode == 66 and "Traceback" not in asked.stderr


def test_file_here_of_an_architecture_that_does_not_run_is_not_copied(pulls: Pulls, folder: pathlib.Path, tmp_path: pathlib.Path) -> None:
    (tmp_path / "x.gguf").write_bytes(of_architecture("phi3"))
    with pytest.raises(ModelRefused, match="'phi3'"):
        pulls(str(tmp_path / "x.gguf"))
    assert left_over(folder) == []
    assert pulls(str(tmp_path / "x.gguf"), any_architecture=True).warning.startswith("It cannot run here") and pulls.checked == []


def test_damaged_foreign_file_is_refused_all_the_same(pulls: Pulls, folder: pathlib.Path, tmp_path: pathlib.Path) -> None:
    (tmp_path / "x.gguf").write_bytes(gguf_with(general__architecture="phi3")[:-2])
    with pytest.raises(ModelRefused):
        pulls(str(tmp_path / "x.gguf"), any_architecture=True)
    assert left_over(folder) == []


def test_several_foreign_files_and_a_foreign_checkpoint_are_said(server: LoopbackHub, pulls: Pulls) -> None:
    server.publish("a/c", {"x-Q8_0.gguf": MODEL, "x-Q4_0.gguf": MODEL})
    server.about["a/c"] = {"gguf": {"architecture": "mamba"}}
    with pytest.raises(ModelMissing, match="architecture 'mamba'"):
        pulls("a/c")
    server.publish("a/d", {"model.safetensors": MODEL})
    server.about["a/d"] = {"config": {"model_type": "mamba"}}
    with pytest.raises(ModelRefused, match="kind 'mamba'"):
        pulls("a/d")
    for config in ({"model_type": "gemma3_text"}, {"model_type": "qwen3"}, {"model_type": ["x"]}, [], None):
        server.about["a/d"] = {"config": config, "gguf": "x"}
        with pytest.raises(MustBeMade):
            pulls("a/d")
    assert server.large.requests == []


# --- where the Hub cannot be asked


@pytest.mark.parametrize("environment", [{"HF_HUB_OFFLINE": "1"}, {"HF_ENDPOINT": "http://127.0.0.1:9"}])
def test_known_model_says_how_it_is_made_without_the_hub(environment: dict[str, str], home: pathlib.Path) -> None:
    done = run("pull", "foggen", **environment)
    assert done.returncode == 66 and "Hub could not be asked" in done.stderr
    assert done.stdout.splitlines()[0] == "python -m convert issai/foggen --quants Q4_K_M --name FogGen-0.6B --out ."
    assert json.loads(run("pull", "foggen-gemma3-1b", "--json", **environment).stdout)["commands"]


def test_unknown_repository_still_needs_the_hub(pulls: Pulls) -> None:
    pulls.hub.endpoint = "http://127.0.0.1:9"
    with pytest.raises(DownloadFailed):
        pulls("a/unknown")


# --- adapters and other files


def test_adapter_is_recognised_and_its_base_is_named(server: LoopbackHub, home: pathlib.Path, tmp_path: pathlib.Path) -> None:
    server.publish("a/lora", {"mine-adapter.gguf": adapter_for("qwen3", base="Qwen3 0.6B")})
    done = run("pull", "a/lora", HF_ENDPOINT=server.url)
    assert done.returncode == 0 and "It is an adapter" in done.stderr and "Qwen3 0.6B" in done.stderr, done.stderr
    (tmp_path / "other.gguf").write_bytes(adapter_for("gemma3"))
    told = json.loads(run("pull", str(tmp_path / "other.gguf"), "--json").stdout)
    assert told["is_adapter"] and told["base"] is None


def test_adapter_of_another_architecture_or_kind_is_refused(folder: pathlib.Path, tmp_path: pathlib.Path, home: pathlib.Path) -> None:
    for data, words in (
        (adapter_for("mamba"), "'mamba'"),
        (gguf_with(general__architecture="qwen3", general__type="adapter"), "is not an adapter"),
    ):
        (tmp_path / "x.gguf").write_bytes(data)
        done = run("pull", str(tmp_path / "x.gguf"))
        assert done.returncode == 66 and words in done.stderr
    assert left_over(home / "models") == []


def test_file_that_is_no_model_is_named(pulls: Pulls, tmp_path: pathlib.Path) -> None:
    (tmp_path / "README.md").write_text("# hello")
    with pytest.raises(ModelRefused, match=r"'README\.md' is not"):
        pulls(str(tmp_path / "README.md"))
    with pytest.raises(ModelMissing, match="which is a folder"):
        pulls(str(tmp_path))


def test_help_names_the_architectures_that_run() -> None:
    words = run("pull", "--help").stdout
    assert all(name in words for name in ARCHITECTURES)

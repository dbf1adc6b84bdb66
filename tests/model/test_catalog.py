"""Names and files: what the catalogue says, and which file a name means."""

import json
import pathlib
import re

import pytest

from edge_agent.core.errors import ModelMissing, StorageError
from edge_agent.model import catalog, pulled
from edge_agent.model.gguf import QUANTIZATIONS
from edge_agent.model.profile import default_profile
from edge_agent.model.pulled import Pulled
from tests.support.command_line import run
from tests.support.paths import DEMO

PUBLISHED = {
    "foggen": ("issai/foggen", "Apache-2.0", "letter"),
    "foggen-r15-oe": ("issai/foggen-r15-oe", "Apache-2.0", "text"),
    "foggen-gemma3-1b": ("issai/foggen-gemma3-1b", "Gemma", "letter"),
    "foggen-gemma3-270m": ("issai/foggen-gemma3-270m", "Gemma", "letter"),
}


def installed(folder: pathlib.Path, file: str = "FogGen-0.6B-Q4_K_M.gguf", alias: str | None = "foggen") -> pathlib.Path:
    """A copy of the demo model, as if it had been pulled."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / file
    path.write_bytes(DEMO.read_bytes())
    pulled.put(folder, [Pulled("hub:a/b", file, catalog.sha256_of(path), path.stat().st_size, "c" * 40, file, alias)])
    return path


def test_published_models_are_described_and_not_pinned() -> None:
    entries = catalog.entries()
    assert {name: (e.repo, e.licence, e.answer_kind) for name, e in entries.items() if e.repo} == PUBLISHED
    for entry in entries.values():
        profile = default_profile(entry.architecture, entry.question_kind)
        assert profile.tau == entry.tau == 0.5
        assert entry.bundled_file or entry.quantization in QUANTIZATIONS.values()
        assert entry.revision is None and entry.sha256 == {}  # a pin that is added here is one that somebody saw


def test_catalogue_with_pins_is_read() -> None:
    text = (DEMO.parents[1] / "catalog.toml").read_text()
    pinned = text.replace('revision = "unpinned"', f'revision = "{"a" * 40}"', 1).replace(
        'sha256 = "unpinned"', 'sha256 = { "x" = "y" }', 1
    )
    entry = catalog.parse(pinned)["foggen"]
    assert (entry.revision, entry.sha256) == ("a" * 40, {"x": "y"})


def test_name_stands_for_the_file_pulled_for_it(tmp_path: pathlib.Path) -> None:
    with pytest.raises(ModelMissing, match="edge-agent pull foggen"):
        catalog.resolve("foggen", tmp_path)
    path = installed(tmp_path)
    assert catalog.resolve("foggen", tmp_path) == catalog.resolve("FogGen-0.6B-Q4_K_M", tmp_path) == path
    with pytest.raises(ModelMissing):
        catalog.resolve("foggen-gemma3-1b", tmp_path)
    path.unlink()
    with pytest.raises(ModelMissing, match="not on this device"):
        catalog.resolve("foggen", tmp_path)


@pytest.mark.parametrize("name", ["../x", "/x", "a/../x", "..", "", "\0", "x/"])
def test_no_name_leaves_the_models_folder(tmp_path: pathlib.Path, name: str) -> None:
    folder = tmp_path / "models"
    folder.mkdir()
    (tmp_path / "x.gguf").write_bytes(b"GGUF")
    with pytest.raises(ModelMissing):
        catalog.resolve(name, folder)


def test_file_name_tells_the_model_of_a_gguf() -> None:
    assert catalog.alias_of("FogGen-0.6B-Q4_K_M.gguf") == catalog.alias_of("FogGen-0.6B-Q8_0.gguf") == "foggen"
    assert catalog.alias_of("FogGen-Gemma3-270M-BF16.gguf") == "foggen-gemma3-270m"
    assert catalog.alias_of("FogGen-0.6B.gguf") is None is catalog.alias_of("x-Q8_0.gguf")


def test_record_replaces_the_one_for_the_same_file(tmp_path: pathlib.Path) -> None:
    first, other = Pulled("hub:a/b", "x", "a" * 64, 1, file="x.gguf"), Pulled("hub:a/b", "y", "b" * 64, 2)
    pulled.put(tmp_path, [first, other])
    pulled.put(tmp_path, [Pulled("hub:c/d", "z", "c" * 64, 3, file="x.gguf")])
    assert [record.path for record in pulled.load(tmp_path)] == ["y", "z"]
    assert pulled.find(tmp_path, "hub:a/b") == {"y": other}


@pytest.mark.parametrize(
    "text", ["", "{", "[1]", "{}x", '[{"source": 1}]', "[" * 100_000, '[{"source": "s", "path": "p", "sha256": "no", "bytes": 1}]',
             json.dumps([{"source": "s", "path": "p", "sha256": "a" * 64, "bytes": 1, "file": "../../x"}])],
)  # fmt: skip
def test_damaged_list_is_refused_and_kept(tmp_path: pathlib.Path, text: str) -> None:
    (tmp_path / pulled.FILE).write_text(text)
    with pytest.raises(StorageError, match="remove it"):
        pulled.load(tmp_path)
    with pytest.raises(StorageError):
        pulled.put(tmp_path, [])
    assert (tmp_path / pulled.FILE).read_text() == text


def test_models_lists_known_models_and_their_files(home: pathlib.Path) -> None:
    installed(home / "models")
    installed(home / "models", "other.gguf", None)
    (home / "models" / "by-hand.gguf").write_bytes(b"GGUF")
    rows = {row["name"]: row for row in json.loads(run("models", "--json").stdout)}
    assert set(rows) == {"demo", *PUBLISHED, "other", "by-hand"}
    assert [file["name"] for file in rows["foggen"]["files"]] == ["FogGen-0.6B-Q4_K_M.gguf"]
    assert rows["foggen"]["files"][0]["sha256"] == catalog.sha256_of(DEMO) and rows["foggen"]["revision"] == "unpinned"
    assert {name: row["answer_kind"] for name, row in rows.items() if name in PUBLISHED} == {
        name: kind for name, (_, _, kind) in PUBLISHED.items()
    }
    assert rows["foggen-gemma3-1b"]["files"] == [] and rows["demo"]["files"][0]["path"] == str(DEMO)
    shown = run("models")
    assert shown.returncode == 0 and "edge-agent pull NAME" in shown.stderr
    assert re.search(r"foggen-gemma3-270m +no +Gemma", shown.stdout)

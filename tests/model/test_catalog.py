"""Names and files: what the catalogue says, and which file a name means."""

import errno
import json
import os
import pathlib
import re

import pytest

from edge_agent.core.errors import ModelMissing, StorageError
from edge_agent.fetch import bundle
from edge_agent.model import catalog, pulled
from edge_agent.model.gguf import QUANTIZATIONS
from edge_agent.model.profile import default_profile
from edge_agent.model.pulled import Pulled
from tests.support.command_line import run
from tests.support.gguf_files import adapter_for
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
        profile = default_profile(entry.architecture, entry.answer_kind)
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


def test_unknown_names_list_what_is_on_this_device(home: pathlib.Path) -> None:
    folder = home / "models"
    installed(folder, "FogGen-0.6B-Q4_K_M.gguf")
    installed(folder, "other.gguf", None)
    with pytest.raises(ModelMissing, match="no adapter is in the models folder"):
        catalog.resolve_adapter("x", folder)
    (folder / "mine-adapter.gguf").write_bytes(adapter_for("qwen3", "Qwen3 0.6B"))
    with pytest.raises(ModelMissing, match=r"There is no model 'x'.*: demo, foggen, .*, other\.$") as caught:
        catalog.resolve("x", folder)
    assert "mine-adapter" not in str(caught.value) and "FogGen-0.6B" not in str(caught.value)
    with pytest.raises(ModelMissing, match=r"There is no adapter 'x'.*: mine-adapter\.$"):
        catalog.resolve_adapter("x", folder)
    assert catalog.resolve_adapter("mine-adapter", folder) == folder / "mine-adapter.gguf"
    for wrong in ("../x", "\0", "", "a/b.gguf", "x.gguf"):
        with pytest.raises(ModelMissing):
            catalog.resolve_adapter(wrong, folder)


def test_adapter_is_listed_as_one_with_its_base_and_is_no_model(home: pathlib.Path) -> None:
    folder = home / "models"
    folder.mkdir(parents=True)
    (folder / "mine-adapter.gguf").write_bytes(adapter_for("qwen3", "Qwen3 0.6B"))
    row = json.loads(run("models", "--json").stdout)[-1]
    assert (row["name"], row["kind"], row["base"]) == ("mine-adapter", "adapter", "Qwen3 0.6B")
    assert re.search(r"mine-adapter .* an adapter for Qwen3 0\.6B", run("models").stdout)
    for command in (
        ("ask", "What is 2 + 2?", "--option", "3", "--option", "4", "--model", "mine-adapter"),
        ("models", "default", "mine-adapter"),
    ):
        done = run(*command)
        assert done.returncode == 66 and "is an adapter, not a model; give it with --adapter" in done.stderr, done.stderr


# --- the list of pulled files


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.EOPNOTSUPP])
def test_list_is_right_on_a_file_system_without_locks(code: int, tmp_path: pathlib.Path) -> None:
    def no_locks(file: object) -> None:
        raise OSError(code, os.strerror(code))

    first, other = Pulled("hub:a/b", "x", "a" * 64, 1, file="x.gguf"), Pulled("hub:c/d", "y", "b" * 64, 2, file="y.gguf")
    pulled.put(tmp_path, [first], no_locks)
    pulled.put(tmp_path, [other], no_locks)
    assert pulled.load(tmp_path) == [first, other]
    pulled.remove(tmp_path, "x.gguf", no_locks)
    assert pulled.load(tmp_path) == [other]


def test_lock_that_fails_for_another_reason_is_reported(tmp_path: pathlib.Path) -> None:
    def broken(file: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with pytest.raises(StorageError, match="Input/output error"):
        pulled.put(tmp_path, [], broken)


def test_list_of_a_later_version_is_read(tmp_path: pathlib.Path) -> None:
    (tmp_path / pulled.FILE).write_text(json.dumps([{"source": "s", "path": "p", "sha256": "a" * 64, "bytes": 1, "colour": "red"}]))
    assert pulled.load(tmp_path) == [Pulled("s", "p", "a" * 64, 1)]


# --- the default model


def test_default_model_is_written_without_harming_the_file(home: pathlib.Path, tmp_path: pathlib.Path) -> None:
    installed(home / "models", "other.gguf", None)
    (home / "config.toml").write_text('# mine\nmodel = "demo" # small\ntau = 0.6\n')
    done = run("models", "default", "other")
    assert done.returncode == 0, done.stderr
    assert (home / "config.toml").read_text() == '# mine\nmodel = "other" # small\ntau = 0.6\n'
    asked = run("ask", "What is 2 + 2?", "--option", "3", "--option", "4", "--json")
    assert json.loads(asked.stdout)["model"]["name"] == "other"
    told = json.loads(run("models", "default", "demo", "--json", EDGE_AGENT_MODEL="other").stdout)
    assert told["model"] == "demo" and "EDGE_AGENT_MODEL" in run("models", "default", "demo", EDGE_AGENT_MODEL="other").stderr
    before = (home / "config.toml").read_text()
    assert run("models", "default", "nothing").returncode == 66 and (home / "config.toml").read_text() == before
    (tmp_path / "here.gguf").write_bytes(DEMO.read_bytes())
    assert run("models", "default", str(tmp_path / "here.gguf")).returncode == 0
    assert f'model = "{tmp_path}/here.gguf" # small' in (home / "config.toml").read_text()


# --- removing


def test_pulled_model_is_removed_with_its_record_and_calibration(home: pathlib.Path) -> None:
    folder = home / "models"
    path = installed(folder, "other.gguf", None)
    pulled.put(folder, [Pulled("hub:a/b", "kiosk.bundle", "d" * 64, 9), Pulled("hub:c/d", "z", "e" * 64, 3, file="z.gguf")])
    (folder / f"other.{bundle.CALIBRATION}").write_text("{}")
    asked = run("models", "rm", "other")
    assert asked.returncode == 2 and "--yes" in asked.stderr and path.is_file()
    size = path.stat().st_size + 2
    with path.open("rb") as held:
        done = run("models", "rm", "other", "--yes", "--json")
        assert done.returncode == 0 and json.loads(done.stdout)["bytes"] == size, done.stderr
        assert len(held.read()) == size - 2  # a program that has it open keeps it
    assert [one.name for one in folder.iterdir() if not one.name.startswith(".")] == [pulled.FILE]
    assert {record.file for record in pulled.load(folder)} == {None, "z.gguf"}
    assert "was not pulled" in run("models", "rm", "other", "--yes").stderr


def test_what_was_not_pulled_or_is_in_use_stays(home: pathlib.Path) -> None:
    folder = home / "models"
    path = installed(folder)
    (folder / "by-hand.gguf").write_bytes(b"GGUF")
    for name, words in (
        ("demo", "comes with"),
        ("by-hand", "copied here by hand"),
        ("../x", "was not pulled"),
        ("nothing", "was not pulled"),
    ):
        done = run("models", "rm", name, "--yes")
        assert done.returncode == 66 and words in done.stderr, done.stderr
    in_use = {"EDGE_AGENT_MODEL": "foggen"}
    assert "--in-use" in run("models", "rm", "foggen", "--yes", **in_use).stderr and path.is_file()
    assert "--in-use" in run("models", "rm", "FogGen-0.6B-Q4_K_M", "--yes", **in_use).stderr and path.is_file()
    assert run("models", "rm", "foggen", "--yes", "--in-use", **in_use).returncode == 0 and not path.exists()


def test_name_of_several_files_is_not_removed(home: pathlib.Path) -> None:
    folder = home / "models"
    installed(folder)
    second = folder / "FogGen-0.6B-Q8_0.gguf"
    second.write_bytes(DEMO.read_bytes())
    pulled.put(folder, [Pulled("hub:a/b", second.name, catalog.sha256_of(second), second.stat().st_size, None, second.name, "foggen")])
    done = run("models", "rm", "foggen", "--yes")
    assert done.returncode == 66 and "several files" in done.stderr and second.is_file()

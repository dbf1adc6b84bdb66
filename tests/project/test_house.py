"""The structure of the code: imports go one way, nothing heavy is loaded early, and files stay small."""

import ast
import pathlib
import re
import subprocess
import sys

import pytest

import edge_agent
from tests.support.paths import ROOT

# A wing may import from itself, from `core`, and from the wings named here.
MAY_IMPORT = {
    "core": {},
    "model": {},
    "store": {},
    "engine": {"model"},
    "cloud": {"store"},
    "agent": {"cloud", "engine", "store", "model"},
    "fetch": {"engine", "model"},
    "measure": {"engine", "model", "store", "cloud"},
    "server": {"agent", "cloud", "store", "measure"},
    "cli": {"agent", "cloud", "engine", "fetch", "measure", "model", "server", "store"},
}
ONLY_IMPORTER = {
    "fcntl": {"core.files"},
    "llama_cpp": {"engine.llama"},
    "httpx": {"cloud.wire.client"},
    "httpx2": {"fetch.connection", "fetch.download"},
    "huggingface_hub": {"fetch.hub", "fetch.xet"},
    "hf_xet": {"fetch.xet"},
    "sqlite_utils": {"store.schema", "measure.run.run_file"},
    "sqlite3": {
        "store.schema",
        "store.file.marker",
        "store.file.salvage",
        "store.file.opening",
        "store.file.restore",
        "store.database",
        "store.store",
        "agent.doctor",
        "measure.run.run_file",
    },
}  # store.store needs the type of a connection, agent.doctor the version of SQLite, measure.run.run_file the exceptions

FILES = {".".join(p.relative_to(ROOT / "edge_agent").with_suffix("").parts): p for p in (ROOT / "edge_agent").rglob("*.py")}


def wing_of(module: str) -> str:
    return module.split(".", maxsplit=1)[0]


def imports(path: pathlib.Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def arrows(files: dict[str, pathlib.Path]) -> set[tuple[str, str]]:
    """Every import between our files, as (importer, imported): ("cloud.drain", "store.store")."""
    found = set()
    for name, path in files.items():
        for imported in imports(path):
            if imported.startswith("edge_agent."):
                parts = imported.split(".")[1:]
                target = next((t for n in range(len(parts), 0, -1) if (t := ".".join(parts[:n])) in files), None)
                if target and target != name:
                    found.add((name, target))
    return found


def forbidden(files: dict[str, pathlib.Path]) -> list[str]:
    """The imports that the table does not allow."""
    inside = {(wing_of(a), wing_of(b), f"{a} imports {b}") for a, b in arrows(files) if wing_of(a) in MAY_IMPORT}
    return sorted(words for wing, target, words in inside if target not in {wing, "core", *MAY_IMPORT[wing]})


def circles(files: dict[str, pathlib.Path]) -> list[str]:
    """The files that import each other, directly or through other files."""
    all_arrows = arrows(files)
    below = {name: {b for a, b in all_arrows if a == name} for name in files}
    while free := [name for name, targets in below.items() if not targets & below.keys()]:
        below = {name: targets for name, targets in below.items() if name not in free}
    return sorted(below)


def test_wings_import_one_way() -> None:
    assert forbidden(FILES) == []


def test_no_circle() -> None:
    assert circles(FILES) == []


@pytest.mark.parametrize("wing", ["core", "model", "store", "engine", "cloud", "fetch", "measure"])
def test_upward_import_is_caught(wing: str, tmp_path: pathlib.Path) -> None:
    planted = tmp_path / "planted.py"
    planted.write_text("def later() -> None:\n    from edge_agent.agent.agent import Agent\n")
    assert forbidden({**FILES, f"{wing}.planted": planted}) == [f"{wing}.planted imports agent.agent"]


def test_circle_is_caught(tmp_path: pathlib.Path) -> None:
    planted = tmp_path / "planted.py"
    planted.write_text("from edge_agent.model.catalog import Entry\n")
    changed = tmp_path / "catalog.py"
    changed.write_text("from edge_agent.model import planted\n" + FILES["model.catalog"].read_text())
    assert {"model.planted", "model.catalog"} <= set(circles({**FILES, "model.planted": planted, "model.catalog": changed}))


def test_every_file_is_in_a_wing() -> None:
    assert {wing_of(name) for name in FILES} <= {*MAY_IMPORT, "__init__", "__main__"}


@pytest.mark.parametrize("library", sorted(ONLY_IMPORTER))
def test_only_the_named_files_import_a_library(library: str) -> None:
    users = {file for file, path in FILES.items() if any(name.split(".")[0] == library for name in imports(path))}
    assert users == ONLY_IMPORTER[library]


def test_only_the_command_line_imports_click() -> None:
    assert {wing_of(file) for file, path in FILES.items() if any(name.split(".")[0] == "click" for name in imports(path))} == {"cli"}


def test_runtime_imports_neither_the_converter_nor_the_recipe() -> None:
    for path in (ROOT / "edge_agent").rglob("*.py"):
        assert not {name.split(".")[0] for name in imports(path)} & {"convert", "models", "torch", "transformers", "pickle"}
    for path in (ROOT / "convert").glob("*.py"):
        assert not {name.split(".")[0] for name in imports(path)} & {"models", "torch", "transformers", "pickle"}


def test_files_are_small_have_a_header_and_do_not_print() -> None:
    for path in [*(ROOT / "edge_agent").rglob("*.py"), *(ROOT / "convert").glob("*.py")]:
        source = path.read_text()
        assert len(source.splitlines()) <= 400, path
        tree = ast.parse(source)
        called = {node.func.id for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}
        assert "print" not in called and ast.get_docstring(tree), path


def test_public_names_exist() -> None:
    for name in edge_agent.__all__:
        assert getattr(edge_agent, name).__name__ == name
    assert edge_agent.__all__ == sorted(edge_agent.__all__)
    with pytest.raises(AttributeError):
        edge_agent.Nothing  # noqa: B018  # the access is the test


def test_importing_the_package_is_light() -> None:
    program = "import sys, edge_agent; print([m for m in ('llama_cpp', 'numpy', 'httpx', 'click', 'sqlite3') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.strip() == "[]"


def test_one_class_name_means_one_thing() -> None:
    """No class name is defined twice at the top level of files; nested classes are not checked."""
    folders = [ROOT / "edge_agent", ROOT / "convert", ROOT / "models" / "recipe"]
    defined: dict[str, list[str]] = {}
    for path in (path for folder in folders for path in folder.rglob("*.py")):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ClassDef):
                defined.setdefault(node.name, []).append(str(path.relative_to(ROOT)))
    assert {name: files for name, files in defined.items() if len(files) > 1} == {}


def test_only_convert_imports_gguf() -> None:
    """The library comes with the `convert` extra; only `convert` and its tests may import it."""
    folders = ("edge_agent", "convert", "models", "examples")
    files = {folder: list((ROOT / folder).rglob("*.py")) for folder in folders}
    users = {folder for folder, paths in files.items() for path in paths if "gguf" in {name.split(".")[0] for name in imports(path)}}
    assert users == {"convert"}


def test_sql_is_written_in_the_store_the_queue_and_the_audits_only() -> None:
    sql = re.compile(r"^\s*(SELECT|INSERT|UPDATE|DELETE|PRAGMA|BEGIN|CREATE|DROP|ALTER|VACUUM)\b.+", re.DOTALL)
    users = set()
    for name, path in FILES.items():
        texts = (node.value for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Constant))
        if any(isinstance(text, str) and sql.match(text) for text in texts):
            users.add(name)
    assert {name for name in users if wing_of(name) != "store"} == {"cloud.queue", "cloud.audits"}


def test_convert_does_not_import_the_command_line() -> None:
    for path in (ROOT / "convert").glob("*.py"):
        assert not any(name.startswith(("edge_agent.cli", "edge_agent.agent")) for name in imports(path)), path

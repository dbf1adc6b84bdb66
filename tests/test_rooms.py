"""The house: imports point one way, nothing heavy is loaded early, nothing grows out of hand."""

import ast
import pathlib
import subprocess
import sys

import pytest

import edge_agent
from tests.conftest import ROOT

# Each room may import what stands in an earlier line, and within its line nothing.
FLOORS = (
    ("errors", "disk"),
    ("settings", "question", "tuning"),
    ("profile", "gguf_check", "records", "child"),
    ("pins", "answer", "routing", "prefix", "line", "schema", "cloud_prompt"),
    ("catalog", "tree", "cloud", "delivery", "ownership", "privacy", "download"),
    ("salvage",),
    ("database",),
    ("store",),
    ("llama", "walk", "prompt", "clock", "hub"),
    ("engine", "draft", "outbox", "breaker", "retention", "budget", "listening"),
    ("keeping",),
    ("drain", "replay", "assembly", "facts"),
    ("agent", "trial"),
    ("bundle",),
    ("pull",),
    ("measure.metrics", "measure.datasets", "measure.rows", "measure.machine", "measure.bench_child"),
    ("measure.evaluate", "measure.bench", "measure.tune", "measure.verify"),
    ("measure.tables", "measure.bench_tables", "measure.report"),
    ("doctor",),
    ("cli.show",),
    ("cli.group",),
    ("cli.progress",),
    (
        "cli.ask",
        "cli.queue",
        "cli.log",
        "cli.eval",
        "cli.bench",
        "cli.doctor",
        "cli.models",
        "cli.bundle",
        "cli.pull",
        "cli.verify",
        "cli.replay",
        "cli.keeping",
    ),
    ("__main__",),
)
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
CLI = {room for rooms in FLOORS for room in rooms if room.startswith("cli.")}
ONLY_IMPORTER = {
    "llama_cpp": {"llama"},
    "httpx": {"cloud", "download"},
    "sqlite3": {"schema", "ownership", "salvage", "database", "doctor"},
    "click": CLI,
}  # doctor: its version

ROOMS = {".".join(p.relative_to(ROOT / "edge_agent").with_suffix("").parts): p for p in (ROOT / "edge_agent").rglob("[!_]*.py")}
ROOMS["__main__"] = ROOT / "edge_agent" / "__main__.py"


def room_of(name: str) -> str | None:
    """The room that an imported name belongs to: "edge_agent.measure.metrics.auroc" to "measure.metrics"."""
    parts = name.split(".")[1:]
    return next((room for n in (2, 1) if (room := ".".join(parts[:n])) in FLOOR), None)


def imports(path: pathlib.Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


@pytest.mark.parametrize("room", sorted(FLOOR))
def test_imports_point_one_way(room: str) -> None:
    rooms = {room_of(name) for name in imports(ROOMS[room]) if name.startswith("edge_agent.")} - {None}
    assert all(FLOOR[name] < FLOOR[room] for name in rooms)


def test_every_room_has_its_floor() -> None:
    assert set(ROOMS) == set(FLOOR)


@pytest.mark.parametrize("library", sorted(ONLY_IMPORTER))
def test_foreign_library_enters_through_one_door(library: str) -> None:
    users = {room for room, path in ROOMS.items() if any(name.split(".")[0] == library for name in imports(path))}
    assert users == ONLY_IMPORTER[library]


def test_runtime_knows_neither_the_workshop_nor_the_recipe() -> None:
    for path in (ROOT / "edge_agent").rglob("*.py"):
        assert not {name.split(".")[0] for name in imports(path)} & {"convert", "models", "torch", "transformers", "pickle"}
    for path in (ROOT / "convert").glob("*.py"):
        assert not {name.split(".")[0] for name in imports(path)} & {"models", "torch", "transformers", "pickle"}


def test_rooms_stay_small_say_what_they_are_and_print_nothing() -> None:
    for path in [*(ROOT / "edge_agent").rglob("*.py"), *(ROOT / "convert").glob("*.py")]:
        source = path.read_text()
        assert len(source.splitlines()) <= 400, path
        tree = ast.parse(source)
        called = {node.func.id for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}
        assert "print" not in called and ast.get_docstring(tree), path


def test_public_names_are_there() -> None:
    for name in edge_agent.__all__:
        assert getattr(edge_agent, name).__name__ == name
    assert edge_agent.__all__ == sorted(edge_agent.__all__)
    with pytest.raises(AttributeError):
        edge_agent.Nothing  # noqa: B018  # the access is the test


def test_importing_the_package_is_light() -> None:
    program = "import sys, edge_agent; print([m for m in ('llama_cpp', 'numpy', 'httpx', 'click', 'sqlite3') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.strip() == "[]"

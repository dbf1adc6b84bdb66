"""A pytest plugin: which tests are not run under emulation, and why. It prints both at the end.

Emulated Python is about ten times slower, so a test with several cases runs its first case, and Hypothesis tries fewer examples.
Tests that kill a process are found in their code; others are named here.
"""

from __future__ import annotations

import ast
import collections
import functools
import pathlib

import pytest
from hypothesis import settings

EXAMPLES = 6  # that Hypothesis tries for each test; on this machine's own processor it tries 60
KILLS = "kill a process with SIGKILL, which is the kernel's work, and the kernel under emulation is that of this machine"
_CONVERTS = "convert checkpoints, which is done on a PC: what a board installs has no converter"
_CASES = "are further cases of a test of which the first case runs"
_SIGNALS = "raise SIGINT in a thread, which emulation does not deliver to the main thread in time"
_PYTHON = "are Python alone and take a minute or more under emulation"
# A part of a test's file and name -> why it is left out.
REASONS = {
    "engine/test_adapter.py": _CONVERTS,
    "engine/test_open_ended.py": _CONVERTS,
    "engine/test_grammar.py": "read 504 questions twice, which takes minutes; tests/arm/test_same_decisions.py reads 200 instead",
    "engine/test_read_all.py::test_timings_count": "compare times with limits of milliseconds, which emulation does not keep",
    "engine/test_local_model.py::test_interrupt_leaves": _SIGNALS,
    "cloud/test_whole_cloud.py::test_interrupted_call": _SIGNALS,
    "store/test_schema.py::test_failed_statement": "migrate one file anew for each SQL statement of all migrations, which takes minutes",
    "core/test_config_file.py::test_random_files": _PYTHON,
    "core/test_parsing.py::test_real_questions": _PYTHON,
    "core/test_question.py::test_real_data": _PYTHON,
}


def reason(item: pytest.Item) -> str | None:
    """Why this test is left out; None if it runs."""
    if getattr(item, "originalname", item.name) in kills(item.path):
        return KILLS
    return next((why for part, why in REASONS.items() if part in item.nodeid), None)


@functools.cache
def kills(path: pathlib.Path) -> frozenset[str]:
    """The functions of a test file that send SIGKILL, or use such a function or text of the same file."""
    parts: dict[str, ast.AST] = {}
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            parts[node.name] = node
        elif isinstance(node, ast.Assign):
            parts |= {name.id: node.value for name in node.targets if isinstance(name, ast.Name)}
    words = {name: ast.unparse(node) for name, node in parts.items()}
    used = {name: {other.id for other in ast.walk(node) if isinstance(other, ast.Name)} for name, node in parts.items()}
    found = {name for name, text in words.items() if "SIGKILL" in text or "os.kill(os.getpid(), 9)" in text}
    while more := {name for name, others in used.items() if name not in found and others & found}:
        found |= more
    return frozenset(found)


class LeftOut:
    """Deselects the tests and counts them by reason."""

    def __init__(self) -> None:
        self.counts: collections.Counter[str] = collections.Counter()

    def pytest_collection(self) -> None:
        settings.register_profile("emulated", parent=settings.get_profile("edge-agent"), max_examples=EXAMPLES)
        settings.load_profile("emulated")

    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        run: dict[str, pytest.Item] = {}
        out = []
        for item in items:
            test = item.nodeid.split("[")[0]
            why = reason(item) or (_CASES if test in run else None)
            self.counts.update([why] if why else [])
            if why:
                out.append(item)
            else:
                run[test] = item
        config.hook.pytest_deselected(items=out)
        items[:] = run.values()

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        for why, count in self.counts.most_common():
            terminalreporter.write_line(f"left out: {count} tests that {why}")


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(LeftOut())

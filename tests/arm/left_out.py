"""A pytest plugin: which tests are not run under emulation, and why. It prints both at the end.

A test is left out by its file or by a part of its name.
"""

from __future__ import annotations

import collections

import pytest

_KILLS = "kill processes; the kernel does that, and it is the same on every processor"
_CONVERTS = "convert checkpoints, which is done on a PC"
_FORKS = "fork or start many processes, each of which the emulator translates anew"
_LONG = "are Python alone and take minutes under emulation"
# A part of a test's file and name -> why it is left out.
REASONS = {
    "killed": _KILLS,
    "kill_": _KILLS,
    "store/test_restore.py": _KILLS,
    "store/test_salvage.py": _KILLS,
    "store/test_schema.py": _KILLS,
    "agent/test_endings.py": _KILLS,
    "engine/test_adapter.py": _CONVERTS,
    "engine/test_open_ended.py": _CONVERTS,
    "engine/test_grammar.py": "read 504 questions twice; tests/arm/test_same_decisions.py reads 200 once",
    "agent/test_fork.py": _FORKS,
    "test_two_writers_lose_nothing": _FORKS,
    "cloud/test_queue.py": _FORKS,
    "core/test_config_file.py::test_random_files": _LONG,
    "core/test_parsing.py::test_real_questions": _LONG,
    "core/test_numbers.py": _LONG,
    "model/test_answers.py::test_walk_agrees_with_brute_force": _LONG,
}


def reason(item: pytest.Item) -> str | None:
    """Why this test is left out; None if it runs."""
    name = item.nodeid.split("[")[0]
    return next((why for part, why in REASONS.items() if part in name), None)


class LeftOut:
    """Deselects the tests and counts them by reason."""

    def __init__(self) -> None:
        self.counts: collections.Counter[str] = collections.Counter()

    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        reasons = [reason(item) for item in items]
        self.counts.update(why for why in reasons if why)
        config.hook.pytest_deselected(items=[item for item, why in zip(items, reasons, strict=True) if why])
        items[:] = [item for item, why in zip(items, reasons, strict=True) if not why]

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        for why, count in self.counts.most_common():
            terminalreporter.write_line(f"left out: {count} tests that {why}")


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(LeftOut())

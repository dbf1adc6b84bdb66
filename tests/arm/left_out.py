"""A pytest plugin: which tests are not run under emulation, and why. It prints both at the end.

A test is left out by its file, by its name, or by what its source uses.
"""

from __future__ import annotations

import collections

import pytest

REASONS: dict[str, str] = {}


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
            terminalreporter.write_line(f"left out: {count} tests: {why}")


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(LeftOut())

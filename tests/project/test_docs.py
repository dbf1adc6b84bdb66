"""What the documents say is what the code does."""

import os
import re

import click
import pytest

from edge_agent import cli
from edge_agent.cli import app as group
from edge_agent.core import settings
from edge_agent.core.errors import EdgeAgentError
from edge_agent.fetch.pull import commands
from edge_agent.model import catalog
from tests.support.paths import ROOT


def command_line_page() -> str:
    """docs/cli.md, from the code: run the tests with EDGE_AGENT_WRITE_DOCS=1 to write it."""
    parts = ["# The command line\n\nEvery command's `--help`, as the program prints it.\n"]

    def add(command: click.Command, path: str, parent: click.Context | None) -> None:
        name = path.rsplit(" ", maxsplit=1)[-1]
        context = click.Context(command, info_name=name, parent=parent, terminal_width=80, max_content_width=80, **command.context_settings)
        parts.append(f"## {path}\n\n```\n{command.get_help(context).strip()}\n```\n")
        if isinstance(command, click.Group):
            for name in sorted(command.commands):
                add(command.commands[name], f"{path} {name}", context)

    add(cli.main, "edge-agent", None)
    return "\n".join(parts)


def test_command_line_page_is_the_help_of_the_program() -> None:
    page = ROOT / "docs" / "cli.md"
    if os.environ.get("EDGE_AGENT_WRITE_DOCS"):
        page.write_text(command_line_page())
    assert page.read_text() == command_line_page()


def test_tree_in_the_readme_names_every_wing() -> None:
    wings = {path.parent.name for path in (ROOT / "edge_agent").glob("*/__init__.py")}
    assert set(re.findall(r"^ {6}(\w+)/", (ROOT / "README.md").read_text(), re.MULTILINE)) == wings


def test_targets_named_in_the_readme_exist() -> None:
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"make (demo-model|test-peers|test-slow|[a-z]+)", (ROOT / "README.md").read_text())) - {"a"} <= targets


def test_locked_versions_have_hashes_and_no_addresses() -> None:
    for name in ("build", "runtime", "dev", "peers"):
        text = (ROOT / "requirements" / f"{name}.txt").read_text()
        pins = re.findall(r"^([a-z][\w.-]*)==[^\n]*\\\n    --hash=sha256:", text, re.MULTILINE)
        assert len(pins) == len(re.findall(r"^[a-z]", text, re.MULTILINE)) > 0
        assert "://" not in text and "index-url" not in text


def test_files_named_in_the_documents_exist() -> None:
    for page in (ROOT / "README.md", ROOT / "docs" / "decisions.md", ROOT / "models" / "demo" / "README.md"):
        for link in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            assert (page.parent / link).exists(), (page, link)


def test_exit_codes_in_the_help_are_those_of_the_exceptions() -> None:
    def codes(kind: type[EdgeAgentError]) -> set[int]:
        return {kind.exit_code}.union(*(codes(sub) for sub in kind.__subclasses__()))

    assert codes(EdgeAgentError) <= set(map(int, re.findall(r"\b\d+\b", group.EXIT_CODES)))


@pytest.mark.parametrize("variable", [*settings.ENVIRONMENT.values(), settings.HOME])
def test_every_environment_variable_is_in_the_help(variable: str) -> None:
    assert variable in command_line_page()


def test_readme_has_the_commands_for_every_published_model() -> None:
    readme = (ROOT / "README.md").read_text()
    for entry in catalog.entries().values():
        assert entry.bundled_file or f"    {commands(entry)[0]}\n" in readme

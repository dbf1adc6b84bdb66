"""The documentation says what the program does: every command in it is run, or the page says why not."""

import ast
import os
import pathlib
import re
import tomllib

import click
import pytest

from edge_agent import cli
from edge_agent.cli.app import EXIT_CODES
from edge_agent.core.config import loading, settings
from edge_agent.core.errors import EdgeAgentError
from edge_agent.core.outcome import CloudKind
from edge_agent.core.routing import Cause, PolicyName, Reason
from edge_agent.fetch.choice import commands
from edge_agent.model import catalog
from edge_agent.store.store import Store
from tests.support import pages
from tests.support.cloud_server import LoopbackCloud
from tests.support.paths import ROOT
from tests.support.settings_table import settings_table

WRITE = bool(os.environ.get("EDGE_AGENT_WRITE_DOCS"))
GENERATED = ROOT / "docs" / "cli.md"
RUN = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(set((ROOT / "docs").glob("*.md")) - {GENERATED})]
READ = [*RUN, ROOT / "benchmarks" / "README.md", ROOT / "models" / "demo" / "README.md", ROOT / "models" / "recipe" / "README.md"]
README_BYTES = 6000
LANGUAGES = {"console", "python", "toml", "json", "text", "js", "yaml"}


def name_of(page: pathlib.Path) -> str:
    return str(page.relative_to(ROOT))


def command_line_page() -> str:
    """The text of docs/cli.md, made from the code; run the tests with EDGE_AGENT_WRITE_DOCS=1 to write the file."""
    parts = ["# The command line\n\nEvery command's `--help`, as the program prints it.\n"]

    def add(command: click.Command, path: str, parent: click.Context | None) -> None:
        name = path.rsplit(" ", maxsplit=1)[-1]
        context = click.Context(command, info_name=name, parent=parent, terminal_width=80, max_content_width=80, **command.context_settings)
        parts.append(f"## {path}\n\n```text\n{command.get_help(context).strip()}\n```\n")
        if isinstance(command, click.Group):
            for name in sorted(command.commands):
                add(command.commands[name], f"{path} {name}", context)

    add(cli.main, "edge-agent", None)
    return "\n".join(parts)


def written(page: pathlib.Path, text: str) -> bool:
    """Whether the page has this text; with EDGE_AGENT_WRITE_DOCS=1 the text is written first."""
    if WRITE:
        page.write_text(text)
    return page.read_text() == text


# Commands and programs


@pytest.mark.parametrize("page", RUN, ids=name_of)
def test_commands_and_programs_on_a_page_do_what_it_says(page: pathlib.Path, tmp_path: pathlib.Path, cloud: LoopbackCloud) -> None:
    assert pages.run(page.read_text(), tmp_path / "reader", cloud.url) == []


def test_wrong_page_is_caught(tmp_path: pathlib.Path) -> None:
    page = "```console\n$ false\n$ echo 1 2\n1 ...\n$ echo 3\n4\n```\n\n```python\nprint(1 + 1)  # 3\n```\n\n"
    page += "<!-- not run: it ends the shell -->\n```console\n$ exit\n```\n"
    found = pages.run(page, tmp_path / "reader", "")
    assert [words.split("`")[1] for words in found] == ["false", "echo 3", "python line-9.py"]


@pytest.mark.parametrize("page", RUN, ids=name_of)
def test_every_block_names_its_language_and_none_is_indented_code(page: pathlib.Path) -> None:
    found = pages.blocks(page.read_text())
    assert {block.language for block in found} <= LANGUAGES
    assert all(block.lines[0].startswith("$ ") for block in found if block.language == "console")
    assert not re.search(r"\n\n {4}", pages.prose(page.read_text()))


def unknown_words(call: list[str]) -> list[str]:
    """The words of an `edge-agent` call that should be a command or an option, but do not exist."""
    command: click.Command = cli.main
    wrong = []
    for word in call:
        if isinstance(command, click.Group) and not word.startswith("-"):
            if word not in command.commands:
                return [word]
            command = command.commands[word]
        elif word.startswith("--") and not any(word in option.opts for option in command.params) and word not in ("--help", "--version"):
            wrong.append(word)
    return wrong


def test_unknown_command_and_option_are_caught() -> None:
    assert unknown_words(["queue", "drain", "--watch"]) == unknown_words(["ask", "?", "--option", "x"]) == []
    assert unknown_words(["queue", "fill"]) == ["fill"] and unknown_words(["ask", "?", "--sure"]) == ["--sure"]


@pytest.mark.parametrize("page", RUN, ids=name_of)
def test_commands_named_in_a_page_exist(page: pathlib.Path) -> None:
    text = page.read_text()
    named = re.findall(r"`(edge-agent [^`]+)`", pages.prose(text).replace("\n", " "))
    named += [command for block in pages.blocks(text) if block.language == "console" for command, _ in block.commands]
    assert [
        word for line in named for call in pages.words_of(line) for word in unknown_words(call) if word.isascii() and word != "VERB"
    ] == []
    modules = re.findall(r"python -m ([\w.]+)", text)
    places = [ROOT.joinpath(*module.split(".")) for module in modules if module.split(".")[0] in ("convert", "models", "benchmarks")]
    assert all(place.with_suffix(".py").exists() or (place / "__main__.py").exists() for place in places)
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"(?:`|\$ )make ([a-z][\w-]*)", text)) <= targets


@pytest.mark.parametrize("page", READ, ids=name_of)
def test_every_link_has_a_target(page: pathlib.Path) -> None:
    def is_there(link: str) -> bool:
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        return target.exists() and (not anchor or anchor in anchors(target))

    def anchors(target: pathlib.Path) -> set[str]:
        titles = re.findall(r"^#+ (.+)$", target.read_text(), re.MULTILINE)
        return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}

    assert [link for link in re.findall(r"\]\(([^)\s:]+)\)", page.read_text()) if not is_there(link)] == []


@pytest.mark.parametrize("page", READ, ids=name_of)
def test_files_named_in_the_pages_exist(page: pathlib.Path) -> None:
    named = re.findall(r"`([\w.-]+/[\w./-]+\.(?:py|sh|toml|md|svg|txt|json))`", pages.prose(page.read_text()))
    roots = (ROOT, ROOT / "edge_agent", ROOT / "edge_agent" / "cli", page.parent)
    assert [path for path in named if "VERB" not in path and not any((root / path).exists() for root in roots)] == []


# What the pages list


def test_readme_is_short_and_every_page_is_linked() -> None:
    text = (ROOT / "README.md").read_text()
    assert len(text.encode()) < README_BYTES
    linked = {pathlib.PurePath(link).name for page in RUN for link in re.findall(r"\]\(([^)#]+\.md)", page.read_text())}
    assert {page.name for page in (ROOT / "docs").glob("*.md")} <= linked
    tree = next(block for block in pages.blocks(text) if block.language == "text").lines
    assert len(tree) == 10
    assert all((ROOT / line.split()[0]).exists() for line in tree)


def test_command_line_page_is_the_help_of_the_program() -> None:
    assert written(GENERATED, command_line_page())


def test_settings_page_has_the_table_of_the_settings() -> None:
    page = ROOT / "docs" / "settings.md"
    start, end = "<!-- written by tests/project/test_docs.py -->\n", "<!-- end -->\n"
    before, rest = page.read_text().split(start)
    assert written(page, before + start + settings_table() + end + rest.split(end)[1])


def test_every_setting_is_in_the_table() -> None:
    names = {one.name for one in settings.DECLARED}
    rows = re.findall(r"^\| `(\w+)` \| [A-Z].+\. \| .* \| .* \| .* \|$", settings_table(), re.MULTILINE)
    assert set(rows) == names
    assert len(rows) == len(names)
    assert all(variable in settings_table() for variable in settings.ENVIRONMENT.values())


@pytest.mark.parametrize("page", RUN, ids=name_of)
def test_settings_in_toml_blocks_are_valid(page: pathlib.Path, tmp_path: pathlib.Path) -> None:
    key = tmp_path / "key"
    key.write_text("secret")
    key.chmod(0o600)
    for text in ("\n".join(block.lines) for block in pages.blocks(page.read_text()) if block.language == "toml"):
        (tmp_path / "config.toml").write_text(text.replace("/etc/edge-agent/key", str(key)))
        assert tomllib.loads(text)
        assert loading.load(environment={settings.HOME: str(tmp_path)}).config_file == tmp_path / "config.toml"


@pytest.mark.parametrize("page", [*READ, ROOT / "docs" / "cli.md"], ids=name_of)
def test_environment_variables_in_the_pages_exist(page: pathlib.Path) -> None:
    known = {*settings.ENVIRONMENT.values(), settings.HOME, "EDGE_AGENT_WRITE_DOCS", "EDGE_AGENT_TEST_DATA"}
    assert set(re.findall(r"(?<!_)EDGE_AGENT_[A-Z_]+", page.read_text())) <= known  # _EDGE_AGENT_COMPLETE is click's


@pytest.mark.parametrize("variable", [*settings.ENVIRONMENT.values(), settings.HOME])
def test_every_environment_variable_is_in_the_help(variable: str) -> None:
    assert variable in command_line_page()


@pytest.mark.parametrize(("page", "kind"), [("asking", PolicyName), ("asking", Reason), ("asking", Cause), ("cloud-and-queue", CloudKind)])
def test_every_policy_reason_and_outcome_is_explained(page: str, kind: type[Reason]) -> None:
    rows = re.findall(r"^\| `(\w+)`", (ROOT / "docs" / f"{page}.md").read_text(), re.MULTILINE)
    assert {member.value for member in kind} <= set(rows)


def test_codes_of_errors_on_the_page_about_http_are_those_of_the_server() -> None:
    rows = re.findall(r"^\| [\d, ]+ \| (.*?) \|", (ROOT / "docs" / "http.md").read_text(), re.MULTILINE)
    named = {code for row in rows for code in re.findall(r"`(\w+)`", row)}
    source = "".join(path.read_text() for path in (ROOT / "edge_agent" / "server").rglob("*.py"))
    assert len(named) > 10 and [code for code in named if f'"{code}"' not in source] == []


def test_exit_codes_in_the_help_and_the_page_are_those_of_the_exceptions() -> None:
    def codes(kind: type[EdgeAgentError]) -> set[int]:
        return {kind.exit_code}.union(*(codes(sub) for sub in kind.__subclasses__()))

    asking = (ROOT / "docs" / "asking.md").read_text().partition("## Exit codes")[2]
    in_help = set(map(int, re.findall(r"\b\d+\b", EXIT_CODES)))
    assert codes(EdgeAgentError) <= in_help
    assert set(map(int, re.findall(r"^\| (\d+) \|", asking, re.MULTILINE))) == in_help


def test_contributing_has_the_table_of_imports() -> None:
    table = (ROOT / "CONTRIBUTING.md").read_text().partition("## Which wing may import which")[2].partition("\n## ")[0]
    rows = {wing: set(re.findall(r"\w+", names)) for wing, names in re.findall(r"^\| `(\w+)` \| .+ \| (.*) \|$", table, re.MULTILINE)}
    house = ast.parse((ROOT / "tests" / "project" / "test_house.py").read_text())
    allowed = next(node.value for node in house.body if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "MAY_IMPORT")
    assert rows == {wing: set(names) for wing, names in ast.literal_eval(allowed).items()}


def test_data_page_explains_every_table(home: pathlib.Path) -> None:
    with Store(home / "edge-agent.db") as store:
        tables = {row["name"] for row in store.database.rows("SELECT name FROM sqlite_schema WHERE type = 'table'")}
    explained = re.findall(r"`(\w+)`", "".join(re.findall(r"^(\| `.+?\|)", (ROOT / "docs" / "data.md").read_text(), re.MULTILINE)))
    assert {name for name in tables if not name.startswith(("_", "sqlite_"))} <= set(explained)


def test_architecture_names_every_wing() -> None:
    wings = {path.parent.name for path in (ROOT / "edge_agent").glob("*/__init__.py")}
    assert wings <= set(re.findall(r"^\| `(\w+)/`", (ROOT / "docs" / "architecture.md").read_text(), re.MULTILINE))


def test_models_page_has_the_commands_for_every_published_model() -> None:
    page = (ROOT / "docs" / "models.md").read_text()
    for entry in catalog.entries().values():
        assert entry.bundled_file or f"$ {commands(entry)[0]}\n" in page


def test_locked_versions_have_hashes_and_no_addresses() -> None:
    for name in ("build", "runtime", "dev", "browser", "peers"):
        text = (ROOT / "requirements" / f"{name}.txt").read_text()
        pins = re.findall(r"^([a-z][\w.-]*)==[^\n]*\\\n    --hash=sha256:", text, re.MULTILINE)
        assert len(pins) == len(re.findall(r"^[a-z]", text, re.MULTILINE)) > 0
        assert "://" not in text and "index-url" not in text

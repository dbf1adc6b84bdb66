"""Whatever the standard streams are, a command ends with an answer or a sentence, and a terminal is safe."""

import json
import os
import pathlib
import re
import subprocess
import sys

import click
import pytest

from edge_agent.cli import main
from tests.support.asked import CLAIM, KAZAKH, asked
from tests.support.command_line import ASK, run
from tests.support.terminal import on_terminal

COMMANDS = [
    ASK, ("log",), ("log", "1"), ("log", "--json"), ("queue", "list"), ("queue", "list", "--json"), ("queue", "drop", "1"), ("replay",),
    ("replay", "--assert"), ("replay", "--tau", "0.1"), ("export",), ("purge", "--older-than", "3"), ("purge", "--dry-run", "--id", "1"),
    ("doctor",), ("models",), ("--help",), ("--version",), ("backup", "{tmp}/copy.db"),
]  # fmt: skip


def shell(command: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A command in bash, in which "$@" is `edge-agent` with its arguments."""
    words = ["bash", "-c", command, "bash", sys.executable, "-m", "edge_agent", *arguments]
    return subprocess.run(words, capture_output=True, text=True, env={**os.environ, **environment}, timeout=120, check=False)


def in_folder(arguments: tuple[str, ...], folder: pathlib.Path) -> list[str]:
    return [word.replace("{tmp}", str(folder)) for word in arguments]


@pytest.mark.parametrize("arguments", [ASK, ("log", "--json"), ("queue", "list"), ("export",), ("--help",)], ids=" ".join)
@pytest.mark.parametrize(
    ("command", "code"),
    [
        ('"$@" >&-', 74),
        ('"$@" >&- 2>&- <&-', 74),
        ('"$@" >/dev/full', 74),
        ('"$@" >/dev/full 2>/dev/full', 74),
        ('"$@" 2>&-', 0),
        ('"$@" <&- 2>/dev/full', 0),
        ('set -o pipefail; "$@" | true', 141),
    ],
)
def test_closed_or_full_stream_ends_in_a_sentence(command: str, code: int, arguments: tuple[str, ...], home: pathlib.Path) -> None:
    asked(home, CLAIM)
    done = shell(command, *arguments)
    assert done.returncode == code and "Traceback" not in done.stderr and "Exception" not in done.stderr, done.stderr
    if code == 74 and "2>" not in command:
        assert done.stderr.splitlines()[-1].startswith("edge-agent: cannot write the output (")


def test_closed_streams_do_not_let_the_database_become_stdout(home: pathlib.Path) -> None:
    """The first file that is opened gets the lowest free number; what is printed must not land in it."""
    asked(home, CLAIM)
    for command in ('"$@" >&-', '"$@" 2>&-', '"$@" <&- >&- 2>&-'):
        shell(command, *ASK, "--refresh")
    assert run("replay", "--assert").returncode == 0 and "integrity" not in run("doctor").stdout
    assert not list(home.glob("*.damaged-*"))


@pytest.mark.parametrize(
    "environment",
    [
        {"PYTHONIOENCODING": "latin-1"},
        {"PYTHONIOENCODING": "ascii"},
        {"PYTHONIOENCODING": "cp1251"},
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    ],
    ids=str,
)
def test_every_encoding_can_print_every_text(environment: dict[str, str], home: pathlib.Path) -> None:
    asked(home, KAZAKH)
    options = [word for option in KAZAKH.options for word in ("--option", option)]
    for arguments in (
        ["ask", KAZAKH.stem, *options],
        ["log"],
        ["queue", "list"],
        ["queue", "drop", "1"],
        ["purge", "--id", "1", "--dry-run"],
    ):
        done = shell('"$@" | iconv -c -t utf-8', *arguments, **environment)
        assert "Traceback" not in done.stderr and (done.stdout or "check its encoding" in done.stderr), arguments
    for arguments in (["log", "-n", "1", "--json"], ["replay", "--json"], ["export"]):
        command = [sys.executable, "-m", "edge_agent", *arguments]
        printed = subprocess.run(command, capture_output=True, env={**os.environ, **environment}, check=True).stdout.decode("utf-8")
        found = json.loads(printed.splitlines()[0] if arguments == ["export"] else printed)
        assert (found[0] if isinstance(found, list) else found)["question"] == KAZAKH.stem


def test_file_name_cannot_write_to_the_terminal(home: pathlib.Path, tmp_path: pathlib.Path) -> None:
    asked(home, CLAIM)
    name = "copy\x1b[2J\x9b\u202e\r.db"
    (home / f"edge-agent.db.before-schema-{name}").write_text("old")
    seen = ""
    for arguments in (
        ["backup", str(tmp_path / name)],
        ["backup", str(tmp_path / name)],  # it exists
        ["purge", "--older-than", "0", "--dry-run"],
        ["purge", "--older-than", "0", "--yes"],
        ["verify", str(tmp_path / name)],
        ["eval", str(tmp_path / name)],
        ["log", name],
        ["log", "1", name],
        ["no", name],
        [name],
        ["doctor", "--model", str(tmp_path / name)],
        [*ASK, "--model", str(tmp_path / name)],
    ):
        _, shown = on_terminal(200, *arguments)
        seen += re.sub("\x1b\\[(?:0|1|31|32|33)m", "", shown)  # our own colours
    assert "copy" in seen and not {"\x1b", "\x9b", "\u202e", "\r"} & set(seen)


@pytest.mark.parametrize("n_files", [5, 8, 12])
def test_few_open_files_end_in_a_sentence_or_an_answer(n_files: int, home: pathlib.Path, tmp_path: pathlib.Path) -> None:
    asked(home, CLAIM)
    drain = ("queue", "drain", "--cloud-url", "http://127.0.0.1:9/v1")
    for arguments in [*COMMANDS, drain, ("eval", "README.md"), ("verify", "demo"), ("pull", "a/b")]:
        done = shell(f'ulimit -n {n_files}; "$@"', *in_folder(arguments, tmp_path), HF_ENDPOINT="http://127.0.0.1:9")
        said = done.stderr.strip().splitlines()
        assert done.returncode in (0, 2, 65, 66, 69, 74) or arguments == ("doctor",), arguments  # its findings have codes of their own
        assert "Traceback" not in done.stderr, (arguments, done.stderr)
        is_said = "doctor" in arguments or (said and said[-1].startswith(("edge-agent: ", "Error: ")))
        assert done.returncode == 0 or is_said, (arguments, said)


def numeric_flags() -> list[tuple[list[str], str]]:
    """Every option with a number, with the words of its command."""
    found = []

    def walk(command: click.Command, words: list[str]) -> None:
        if isinstance(command, click.Group):
            for name, sub in command.commands.items():
                walk(sub, [*words, name])
        for option in command.params:
            if isinstance(option.type, (click.types.IntParamType, click.types.FloatParamType)) or option.name == "tau":
                found.append((words, option.opts[0]))

    walk(main, [])
    return found


@pytest.mark.parametrize(("words", "flag"), numeric_flags(), ids=str)
@pytest.mark.parametrize("number", ["1e308", "nan", "-0", "99999999999999999999999", "9" * 5000])
def test_no_number_of_a_flag_ends_in_a_traceback(words: list[str], flag: str, number: str) -> None:
    needed = {"verify": ["x.gguf"], "eval": ["x"], "bench": ["x.gguf"], "ask": ["Q", "--option", "a", "--option", "b"], "log": ["x"]}
    needed["serve"] = ["--model", "nothing"]  # it would go on until it is stopped
    done = run(
        *words,
        *needed.get(words[0], []) if flag != "--after" else ["--json"],
        f"{flag}={number}" if flag.startswith("--") else flag + number,
    )
    assert done.returncode in (0, 2, 65, 66) and "Traceback" not in done.stderr, done.stderr

"""Runs the commands and the Python of a documentation page in order, as a reader would.

Owns the conventions of the pages:

- A ```console block has commands (`$ `, continued by `> `) and what they print. `...` matches any text; times, numbers of ms
  and the width of spaces may differ.
- A ```python block is a program. The comment after a `print` is what it prints.
- A block that no test runs has `<!-- not run: why -->` on the line before it.
- The address CLOUD is replaced by the address of a cloud that the caller provides.
- A page with the address SERVER gets a server of its own, with that cloud; its address is put there.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import re
import shlex
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass

from tests.support.paths import ROOT
from tests.support.serving import serving

CLOUD = "https://api.example.com/v1"
SERVER = "http://127.0.0.1:8640"
_MARK = re.compile(r"\x1e(\d+)\n")
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d\d:\d\d|\d\d [A-Z][a-z]{2} \d\d:\d\d")
_AS_IF_INSTALLED = {"make demo": "sh examples/demo.sh"}  # what make does once .venv exists
_NOT_RUN = re.compile(r"<!-- not run: (.+) -->")


@dataclass(frozen=True)
class Block:
    """A fenced block: its first line, its language, its lines, and why it is not run (None if it is run)."""

    line: int
    language: str
    lines: tuple[str, ...]
    not_run: str | None

    @property
    def commands(self) -> list[tuple[str, str]]:
        """Each command of a console block, with what it should print ("" if the page does not say)."""
        found: list[tuple[list[str], list[str]]] = []
        for line in self.lines:
            if line.startswith("$ "):
                found.append(([line[2:]], []))
            elif line.startswith("> ") and not found[-1][1]:
                found[-1][0].append(line[2:])
            else:
                found[-1][1].append(line)
        return [("\n".join(command), "\n".join(printed)) for command, printed in found]


def blocks(text: str) -> list[Block]:
    """The fenced blocks of a page."""
    found, lines, before, start, language = [], text.split("\n"), "", 0, ""
    for number, line in enumerate(lines, 1):
        if line.startswith("```"):
            if not start:
                start, language = number, line[3:].strip()
                continue
            match = _NOT_RUN.fullmatch(before)
            found.append(Block(start, language, tuple(lines[start : number - 1]), match and match[1]))
            start = 0
            before = ""
        elif not start and line.strip():
            before = line.strip()
    return found


def prose(text: str) -> str:
    """A page without its fenced blocks."""
    return re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)


def run(page: str, folder: pathlib.Path, cloud_url: str) -> list[str]:
    """Run the blocks of a page in one shell in `folder`, with links to the checkout's files. Returns what differs from the page."""
    page = page.replace(CLOUD, cloud_url)
    with contextlib.ExitStack() as stack:
        if SERVER in page:
            server = stack.enter_context(serving(folder.parent / "served", "--cloud-url", cloud_url, "--cloud-model", "large"))
            page = page.replace(SERVER, server.url)
        return _run(page, folder)


def _run(page: str, folder: pathlib.Path) -> list[str]:
    _link_checkout(folder)
    script, expected = [], []
    for block in blocks(page):
        if block.not_run or block.language not in ("console", "python"):
            continue
        if block.language == "python":
            program = folder / f"line-{block.line}.py"
            program.write_text("\n".join(block.lines) + "\n")
            commands = [(f"python {program.name}", _expected(block.lines))]
        else:
            commands = block.commands
        for command, printed in commands:
            script.append(f"{{ {_AS_IF_INSTALLED.get(command, command)}\n}} </dev/null 2>&1; printf '\\036%d\\n' $?")
            expected.append((block.line, command, printed))
    environment = {
        **os.environ,
        "PATH": f"{folder / '.venv' / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "HOME": str(folder),
        "NO_PROXY": "127.0.0.1",
        "no_proxy": "127.0.0.1",
        "OMP_WAIT_POLICY": "passive",  # llama.cpp's threads do not spin while they wait, which would slow down a busy machine
    }
    done = subprocess.run(
        ["bash", "-c", "\n".join(script)], cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    *results, rest = _MARK.split(done.stdout)
    wrong = [f"the shell ended early: {rest}{done.stderr}"] if len(results) != 2 * len(expected) else []
    for (line, command, printed), output, code in zip(expected, results[::2], results[1::2], strict=False):
        if code != "0":
            wrong.append(f"line {line}: `{command}` ended with {code}: {output}")
        elif printed and not _matches(output, printed):
            wrong.append(f"line {line}: `{command}` printed\n{output}instead of\n{printed}")
    return wrong


def _link_checkout(folder: pathlib.Path) -> None:
    """Link the checkout's files, so that commands read them there but write to this folder."""
    folder.mkdir(parents=True)
    (folder / ".venv").symlink_to(sys.prefix)
    for name in ("models", "examples", "benchmarks", "convert", "edge_agent", "tests", "docs"):
        (folder / name).symlink_to(ROOT / name)


def _expected(lines: Iterable[str]) -> str:
    """What a program should print, from the comments after its print calls."""
    return "\n".join(match[1] for line in lines if (match := re.fullmatch(r"\s*print\(.*\)  # (.+)", line)))


def _matches(output: str, printed: str) -> bool:
    def words(text: str) -> str:
        lines = (" ".join(line.split()) for line in text.strip().split("\n"))
        return re.sub(r"\b\d+ ms", "0 ms", re.sub(_TIME, "TIME", "\n".join(lines)))

    pattern = ".*?".join(re.escape(part) for part in re.split(r"\s*(?:\.\.\.|…)\s*", words(printed)))
    return re.fullmatch(pattern, words(output), re.DOTALL) is not None


def words_of(command: str) -> list[list[str]]:
    """The words of each `edge-agent` call in a shell command."""
    calls = []
    for part in re.split(r"[|;&]|\n", command.replace("\\\n", " ")):
        try:
            words = shlex.split(part, comments=True)
        except ValueError:
            words = part.split()
        while words and "=" in words[0]:
            words.pop(0)
        if words and pathlib.PurePath(words[0]).name == "edge-agent":
            calls.append(words[1:])
    return calls

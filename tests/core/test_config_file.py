"""One setting changes, and every other line of config.toml stays as its owner wrote it."""

import multiprocessing
import pathlib
import random
import time
import tomllib
from typing import Any

import pytest

from edge_agent.core.config import file as config_file
from edge_agent.core.config.loading import load
from edge_agent.core.errors import BadSetting, StorageError

OWNERS = """\
# the kiosk in the hall
model = "demo"   # the small one, until foggen is here
tau=0.6

never_send = [
  "secret",  # ours
  "password = 1",
]
# end
"""


def test_value_is_replaced_in_its_place(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text(OWNERS)
    config_file.set_value(path, "model", "foggen")
    assert path.read_text() == OWNERS.replace('"demo"', '"foggen"')
    config_file.set_value(path, "tau", 0.75)
    assert path.read_text() == OWNERS.replace('"demo"', '"foggen"').replace("tau=0.6", "tau=0.75")
    config_file.set_value(path, "never_send", ("one", "two"))
    assert path.read_text().splitlines()[4:] == ['never_send = ["one", "two"]', "# end"]


def test_new_value_goes_after_the_others(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text(OWNERS)
    config_file.set_value(path, "policy", "only_local")
    assert path.read_text() == OWNERS + 'policy = "only_local"\n'
    config_file.unset(path, "policy")
    assert path.read_text() == OWNERS


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", 'model = "m"\n'),
        ("# nothing here", '# nothing here\nmodel = "m"\n'),
        ('model = "a#b" # why', 'model = "m" # why\n'),
        ("tau = 1\r\nmodel = 'x'\r\n", 'tau = 1\r\nmodel = "m"\r\n'),
        ("tau = 1\r\n", 'tau = 1\r\nmodel = "m"\r\n'),
        ('"model" = "x"\n', '"model" = "m"\n'),
        ('  model\t= """a\nb"""\nx = 1\n', '  model\t= "m"\nx = 1\n'),
        ('x = """\nmodel = "old"\n"""\n', 'x = """\nmodel = "old"\n"""\nmodel = "m"\n'),
        ('x = """\nmodel = "old"\n"""\nmodel = "old"\n', 'x = """\nmodel = "old"\n"""\nmodel = "m"\n'),
        ('a = 1\n\n# of t\n[t]\nmodel = "t"\n', 'a = 1\nmodel = "m"\n\n# of t\n[t]\nmodel = "t"\n'),
        ("[t]\nx = 1", 'model = "m"\n[t]\nx = 1\n'),
        ("a = 1\n# of a\n\n[[t]]\nx = nan\n", 'a = 1\n# of a\nmodel = "m"\n\n[[t]]\nx = nan\n'),
        ("day = 2026-01-02\nbad = nan\nyes = true\n", 'day = 2026-01-02\nbad = nan\nyes = true\nmodel = "m"\n'),
        ('x = "\u2028model = 1"\n', 'x = "\u2028model = 1"\nmodel = "m"\n'),
        ('model.x = 1\nmodel.y = 2\n"a" = 1\n', None),
        ("[model]\nx = 1\n", None),
    ],
)
def test_other_lines_stay(before: str, after: str | None, tmp_path: pathlib.Path) -> None:
    path = tmp_path / "config.toml"
    path.write_bytes(before.encode())
    if after is None:
        with pytest.raises(BadSetting, match="change it in an editor"):
            config_file.set_value(path, "model", "m")
        after = before
    else:
        config_file.set_value(path, "model", "m")
    assert path.read_bytes().decode() == after


@pytest.mark.parametrize(
    "value", ['"\\', "tab\tline\nend\r\n", "\x00\x1f\x7f\x85", "Қазақ 🚀", "# no comment", '"""', 1e10, 0.5, 1e22, 3, True, []]
)
def test_value_is_read_as_it_was_written(value: Any, tmp_path: pathlib.Path) -> None:
    path = tmp_path / "config.toml"
    for _ in range(2):  # new, then over itself
        config_file.set_value(path, "x", value)
        assert tomllib.loads(path.read_bytes().decode()) == {"x": value}


def test_values_that_toml_cannot_hold_are_refused(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "config.toml"
    for value in (None, "\ud800", {"a": None}, float("nan"), object()):
        with pytest.raises(BadSetting):
            config_file.set_value(path, "x", value)
    with pytest.raises(BadSetting):
        config_file.set_value(path, "a b", 1)
    assert not path.exists()


@pytest.mark.parametrize("broken", ["model = \n", "x = 1\nx = 2\n", "\ufeffx = 1\n", b"x = '\xff'\n"])
def test_a_file_that_is_not_toml_is_left_alone(broken: str | bytes, tmp_path: pathlib.Path) -> None:
    path = tmp_path / "config.toml"
    before = broken.encode() if isinstance(broken, str) else broken
    path.write_bytes(before)
    with pytest.raises(BadSetting, match="not valid TOML"):
        config_file.set_value(path, "model", "m")
    with pytest.raises(BadSetting, match="not valid TOML"):
        config_file.unset(path, "model")
    assert path.read_bytes() == before


def test_file_is_its_owners_alone_and_a_link_stays_a_link(tmp_path: pathlib.Path) -> None:
    real, link = tmp_path / "dotfiles" / "edge.toml", tmp_path / "new" / "config.toml"
    real.parent.mkdir()
    link.parent.mkdir()
    link.symlink_to(real)
    config_file.set_value(link, "model", "m")
    assert link.is_symlink() and real.stat().st_mode & 0o777 == 0o600
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file() and not path.is_symlink()) == ["edge.toml"]


def test_a_folder_that_cannot_be_written_is_said(tmp_path: pathlib.Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot be written"):
        config_file.set_value(tmp_path / "file" / "config.toml", "model", "m")


def _set_many(path: pathlib.Path, name: str) -> None:
    for value in range(20):
        config_file.set_value(path, f"{name}{value}", value)


def test_two_writers_lose_nothing(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "config.toml"
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_set_many, args=(path, name)) for name in "ab"]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert len(tomllib.loads(path.read_text())) == 40


def test_random_files_keep_their_values_and_comments(tmp_path: pathlib.Path) -> None:
    """Files put together from odd lines: after each change they hold what they held, plus the change."""
    path, dice = tmp_path / "config.toml", random.Random(1)
    pieces = [
        "# model = 1\n", "\n", 'tau = 0.5 # "x"\n', "'model' = 'x' # c\n", "x = [\n 1, # model = 2\n]\n", "y = '''\nmodel = 3\n# no\n'''\n",
        "z = {model = 4}\n", "[t]\n", "model = 5\n", "[[u]] # u\n", "date = 2026-01-01T00:00:00Z\n", "\t#tab\r\n",
    ]  # fmt: skip
    n_valid = 0
    for _ in range(3000):
        text = "".join(dice.choices(pieces, k=dice.randint(0, 7)))
        try:
            before = tomllib.loads(text)
        except tomllib.TOMLDecodeError:
            continue
        n_valid += 1
        path.write_bytes(text.encode())
        config_file.set_value(path, "model", "new")
        after = path.read_bytes().decode()
        assert tomllib.loads(after) == before | {"model": "new"}
        assert sum(after.count(mark) for mark in ("# model = 1", "#tab", '# "x"', "# u", "# c")) == sum(
            text.count(mark) for mark in ("# model = 1", "#tab", '# "x"', "# u", "# c")
        )
        config_file.unset(path, "model")
        assert tomllib.loads(path.read_bytes().decode()) == {name: value for name, value in before.items() if name != "model"}
    assert n_valid > 500


MANY = {
    "settings": "".join(f"s{n} = {n}\n" for n in range(6000)),
    "one long list": "x = [\n" + "".join(f'  "{n}",  # model = {n}\n' for n in range(6000)) + "]\n",
    "many lists": "x = [\n" + "[\n1,\n],\n" * 2000 + "]\n[t]\ny = 1\n",
    "tables": "".join(f"[t{n}]\nmodel = {n}\n" for n in range(6000)),
    "a table after comments": "# no\n" * 6000 + "[t]\n" + "".join(f"s{n} = {n}\n" for n in range(6000)),
    "a long text": "x = '''\n" + "model = [\n" * 6000 + "'''\n",
    "a text with many marks": 'model = "' + " #" * 6000 + '"\n',
    "spaces": "model = 1" + " " * 100_000 + "# why\n",
}


@pytest.mark.parametrize("text", MANY.values(), ids=MANY)
def test_a_long_file_is_changed_soon(text: str, tmp_path: pathlib.Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text(text)
    started = time.process_time()
    try:
        config_file.set_value(path, "model", "m")
        assert tomllib.loads(path.read_text()) == tomllib.loads(text) | {"model": "m"}
    except BadSetting as error:
        assert "change it in an editor" in str(error) and path.read_text() == text and "[\n" in text
    assert time.process_time() - started < 8  # once 60 s and more


def test_a_file_that_is_too_large_is_said(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text("# no\n" * 220_000)
    for change in (lambda: config_file.set_value(path, "model", "m"), lambda: config_file.unset(path, "model")):
        with pytest.raises(BadSetting, match="more than 1 MiB"):
            change()
    with pytest.raises(BadSetting, match="more than 1 MiB"):
        load(environment={"EDGE_AGENT_HOME": str(tmp_path)})
    path.write_text("tau = 0.5\n")
    with pytest.raises(BadSetting, match="more than 1 MiB"):
        config_file.set_value(path, "model", "m" * (1 << 20))
    assert path.read_text() == "tau = 0.5\n"


@pytest.mark.parametrize("value", [{}, {"a b": "x", "c": {"d": [1, 2.5, True, {"e": "\x7f"}]}}, {"қ": '"'}, [{"a": 1}, ["b"]]])
def test_table_is_written_on_one_line(value: Any, tmp_path: pathlib.Path) -> None:
    path = tmp_path / "config.toml"
    for _ in range(2):
        config_file.set_value(path, "x", value)
        assert tomllib.loads(path.read_bytes().decode()) == {"x": value} and path.read_text().count("\n") == 1


def test_value_that_cannot_be_written_is_not_shown(tmp_path: pathlib.Path) -> None:
    with pytest.raises(BadSetting) as caught:
        config_file.set_value(tmp_path / "config.toml", "x", {"key": "sk-verysecret", "none": None})
    assert "verysecret" not in str(caught.value)

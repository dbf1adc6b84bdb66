"""`edge-agent service install --kiosk`: what it writes for the screen, and that it touches nothing that is not its own."""

import ctypes
import ctypes.util
import json
import pathlib
import tomllib

import pytest

from edge_agent.cli.kiosk import files, standing_in
from edge_agent.cli.kiosk.session import compositor, own_settings
from tests.support import systemd
from tests.support.command_line import run

UNIT = "etc/systemd/system/edge-agent-kiosk.service"
PLACE = "usr/local/lib/edge-agent-kiosk"
POLICY = "etc/chromium/policies/managed/edge-agent-kiosk.json"
INSTALL = ("service", "install", "--kiosk")


def written(root: pathlib.Path) -> set[str]:
    return {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()}


def test_install_writes_the_session_and_says_what_to_do_next(tmp_path: pathlib.Path) -> None:
    done = run(*INSTALL, "--root", str(tmp_path), "--port", "9000")
    assert done.returncode == 0, done.stderr
    assert {UNIT, POLICY, f"{PLACE}/greetd.toml", f"{PLACE}/session/__main__.py", f"{PLACE}/session/starting.html"} <= written(tmp_path)
    greetd = tomllib.loads((tmp_path / PLACE / "greetd.toml").read_text())
    assert greetd["default_session"]["command"].endswith("-m session http://127.0.0.1:9000/") and greetd["terminal"]["vt"] == 7
    assert "--kiosk" in (tmp_path / "etc/systemd/system/edge-agent.service").read_text()
    for step in ("apt-get install greetd cage", "useradd --system", "enable edge-agent-kiosk", "set-default graphical.target"):
        assert step in done.stderr
    modes = {path.stat().st_mode & 0o777 for path in (tmp_path / PLACE).rglob("*") if path.is_file()}
    assert modes == {0o644}  # the session's user must read them, and may not write them


def test_install_again_changes_nothing_and_another_port_needs_replace(tmp_path: pathlib.Path) -> None:
    first = json.loads(run(*INSTALL, "--root", str(tmp_path), "--json").stdout)
    again = json.loads(run(*INSTALL, "--root", str(tmp_path), "--json").stdout)
    assert first["kiosk"]["changed"] and not again["kiosk"]["changed"] and not again["changed"]
    done = run(*INSTALL, "--root", str(tmp_path), "--port", "9000")
    assert done.returncode == 74 and "--replace" in done.stderr
    assert run(*INSTALL, "--root", str(tmp_path), "--port", "9000", "--replace").returncode == 0
    assert ":9000/" in (tmp_path / PLACE / "greetd.toml").read_text() and ":9000" in (tmp_path / POLICY).read_text()


@pytest.mark.parametrize("path", [POLICY, UNIT, f"{PLACE}/greetd.toml"])
def test_a_file_of_somebody_else_is_neither_replaced_nor_removed(path: str, tmp_path: pathlib.Path) -> None:
    (tmp_path / path).parent.mkdir(parents=True)
    (tmp_path / path).write_text("mine")
    for flags in ((), ("--replace",)):
        done = run(*INSTALL, "--root", str(tmp_path), *flags)
        assert done.returncode == 74 and "was not written by" in done.stderr
    run("service", "remove", "--root", str(tmp_path))
    assert written(tmp_path) == {path} and (tmp_path / path).read_text() == "mine"


def test_remove_takes_it_all_away_and_leaves_what_others_put_there(tmp_path: pathlib.Path) -> None:
    run(*INSTALL, "--root", str(tmp_path))
    links = tmp_path / "etc/systemd/system"
    (links / "graphical.target.wants").mkdir()
    for name in files.LINKS:
        (links / name).symlink_to(f"/{UNIT}")
    theirs = {"etc/chromium/policies/managed/theirs.json", f"{PLACE}/theirs", "etc/greetd/config.toml", "etc/default/edge-agent-kiosk"}
    for path in theirs:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text("theirs")
    done = run("service", "remove", "--root", str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert written(tmp_path) == theirs and not any((links / name).is_symlink() for name in files.LINKS)


def test_another_display_managers_link_stays(tmp_path: pathlib.Path) -> None:
    run(*INSTALL, "--root", str(tmp_path))
    link = tmp_path / "etc/systemd/system/display-manager.service"
    link.symlink_to("/lib/systemd/system/lightdm.service")
    run("service", "remove", "--root", str(tmp_path))
    assert link.is_symlink()


def test_a_new_version_removes_the_files_that_it_no_longer_has(tmp_path: pathlib.Path) -> None:
    run(*INSTALL, "--root", str(tmp_path))
    listed = tmp_path / PLACE / "written.json"
    old = tmp_path / PLACE / "session/old/old.py"
    old.parent.mkdir()
    old.touch()
    listed.write_text(json.dumps({"files": [*json.loads(listed.read_text())["files"], f"/{PLACE}/session/old/old.py"]}))
    assert run(*INSTALL, "--root", str(tmp_path)).returncode == 0
    assert not old.parent.exists() and "old.py" not in listed.read_text()


def test_status_tells_about_the_screen(tmp_path: pathlib.Path) -> None:
    run(*INSTALL, "--root", str(tmp_path))
    assert json.loads(run("service", "status", "--root", str(tmp_path), "--json").stdout)["kiosk"]["missing"] == []
    (tmp_path / POLICY).unlink()
    said = run("service", "status", "--root", str(tmp_path)).stdout
    assert f"screen   is not whole, /{POLICY} is missing" in said


def test_print_shows_every_file_and_writes_none(tmp_path: pathlib.Path) -> None:
    done = run(*INSTALL, "--print", "--root", str(tmp_path))
    assert done.returncode == 0 and not list(tmp_path.iterdir())
    for file in files.all_files(8640, "en"):
        assert f"# {file.path}\n" in done.stdout
    assert len(done.stdout) < 60_000  # no font
    assert f"/{UNIT}" in json.loads(run(*INSTALL, "--print", "--json").stdout)["kiosk"]


@pytest.mark.parametrize(
    ("flags", "exit_code", "said"),
    [
        (("--user",), 2, "--kiosk is for the whole device"),
        (("--host", "192.0.2.7", "--token-file", "/t"), 78, "--host 0.0.0.0"),
        (("--token-file", "/t"), 78, "has no token"),
    ],
)
def test_what_could_not_work_is_refused(flags: tuple[str, ...], exit_code: int, said: str) -> None:
    done = run(*INSTALL, "--print", *flags)
    assert done.returncode == exit_code and said in done.stderr


@systemd.needs_analyzer
def test_systemd_accepts_the_unit(tmp_path: pathlib.Path) -> None:
    import subprocess

    text = next(file.content for file in files.all_files(8640, "en") if file.path.name == files.UNIT).decode()
    unit = tmp_path / files.UNIT
    unit.write_text(text.replace("ExecStart=greetd", "ExecStart=/bin/true"))  # which may be missing here
    done = subprocess.run([str(systemd.ANALYZER), "verify", "--man=no", str(unit)], capture_output=True, text=True, check=False)
    assert done.returncode == 0 and files.UNIT not in done.stderr, done.stderr


@pytest.mark.parametrize("language", standing_in.LANGUAGES)
def test_the_page_that_stands_in_loads_nothing_and_has_every_language(language: str) -> None:
    page = standing_in.page(language)
    assert "<script" not in page and "http:" not in page.replace("http-equiv", "") and "https:" not in page
    assert page.count("url(") == page.count("url(data:font/woff2;base64,") == 3
    assert all(words in page for words in ("Back in a moment", "Қазір ораламыз", "Сейчас вернёмся"))
    assert f'<div lang="{language}"><h1>' in page


def test_own_settings_are_read_and_a_wrong_line_is_named(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "kiosk"
    assert own_settings.read(file) == own_settings.DEFAULTS
    file.write_text("# the screen stands\nKIOSK_ROTATE=90\nKIOSK_FLAGS='--force-device-scale-factor=1.5 --x'\n\n")
    assert own_settings.read(file)["KIOSK_FLAGS"] == "--force-device-scale-factor=1.5 --x"
    monkeypatch.setenv("KIOSK_ROTATE", "270")
    assert own_settings.read(file)["KIOSK_ROTATE"] == "270"
    file.write_text("KIOSK_ROTATION=90\n")
    with pytest.raises(ValueError, match="KIOSK_ROTATION"):
        own_settings.read(file)


def test_outputs_are_read_from_what_wlr_randr_prints() -> None:
    assert compositor.outputs('HDMI-A-1 "Maker 1"\n  Enabled: yes\n  Modes:\n    1920x1080 px\nDSI-1 "x"\n  Enabled: yes\n') == [
        "HDMI-A-1",
        "DSI-1",
    ]


# The keyboard


class Names(ctypes.Structure):
    _fields_ = [(name, ctypes.c_char_p) for name in ("rules", "model", "layout", "variant", "options")]


@pytest.mark.parametrize("layouts", ["us", "us,ru,kz"])
def test_no_key_is_a_command(layouts: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The library that the compositor uses makes a keyboard of the rules: it writes, and has no Ctrl, Alt, Super and F keys."""
    name = ctypes.util.find_library("xkbcommon")
    if name is None or not pathlib.Path("/usr/share/X11/xkb/rules/evdev").exists():
        pytest.skip("needs libxkbcommon and its data: apt-get install cage")
    told = compositor.environment({**own_settings.DEFAULTS, "KIOSK_LAYOUT": layouts})
    library = ctypes.CDLL(name)
    for function in ("xkb_context_new", "xkb_keymap_new_from_names", "xkb_state_new"):
        getattr(library, function).restype = ctypes.c_void_p
    libc = ctypes.CDLL(None)
    monkeypatch.setenv("XKB_CONFIG_EXTRA_PATH", told["XKB_CONFIG_EXTRA_PATH"])
    libc.setenv(b"XKB_CONFIG_EXTRA_PATH", told["XKB_CONFIG_EXTRA_PATH"].encode(), 1)
    context = ctypes.c_void_p(library.xkb_context_new(0))
    names = Names(*(told[f"XKB_DEFAULT_{field.upper()}"].encode() for field in ("rules", "model", "layout", "variant", "options")))
    keymap = ctypes.c_void_p(library.xkb_keymap_new_from_names(context, ctypes.byref(names), 0))
    assert keymap.value, "the rules make no keyboard"
    typed, effects = set(), set()
    for code in range(8, 256):
        state = ctypes.c_void_p(library.xkb_state_new(keymap))
        text = ctypes.create_string_buffer(64)
        library.xkb_keysym_get_name(library.xkb_state_key_get_one_sym(state, code), text, 64)
        typed.add(text.value.decode())
        library.xkb_state_update_key(state, code, 1)
        effects |= {
            one for one in ("Shift", "Control", "Mod1", "Mod4", "Mod5") if library.xkb_state_mod_name_is_active(state, one.encode(), 8) > 0
        }
    assert effects == {"Shift"}
    assert {"a", "z", "1", "space", "Return", "Tab", "BackSpace", "Delete", "Escape", "Left", "KP_Enter"} <= typed
    assert not {
        one
        for one in typed
        if one.startswith(("Control", "Alt", "Super", "Meta", "Hyper", "XF86")) or one in ("Menu", "Print", "F1", "F11")
    }
    assert library.xkb_keymap_num_layouts(keymap) == len(layouts.split(","))

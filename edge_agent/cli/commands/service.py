"""`edge-agent service`: runs `edge-agent serve` as a systemd service.

Owns where the unit lies and what is said about it; `cli/unit.py` owns its text, `cli/kiosk/` what `--kiosk` adds. Invariant: a file that
this command did not write is neither replaced nor removed, and nothing is started or stopped: the commands for that are printed.
"""

from __future__ import annotations

import os
import pathlib
import shutil
import subprocess
import sys
from typing import Any

import click

from edge_agent.cli.app import EXIT_CODES, PROFILE, main, with_settings
from edge_agent.cli.commands.serve import check_installed
from edge_agent.cli.kiosk import files as kiosk_files
from edge_agent.cli.kiosk import installing, steps
from edge_agent.cli.show import echo, print_json, say
from edge_agent.cli.unit import MARK, NAME, STATE, Unit
from edge_agent.core.config import loading, settings
from edge_agent.core.errors import BadSetting, StorageError
from edge_agent.core.terminal import plain

_USER = "edge-agent"  # the system user that the service runs as
_SYSTEM_FOLDER = pathlib.Path("/etc/systemd/system")
_STATE_FOLDER = pathlib.Path("/var/lib") / STATE
_TARGETS = ("multi-user.target.wants", "default.target.wants")
_SECRETS = {"cloud_key": loading.CREDENTIAL, "token": "edge-agent-serve-token", "operator_token": "edge-agent-operator-token"}
_SHOWN = ("LoadState", "UnitFileState", "ActiveState", "SubState", "NRestarts", "StatusText")
_FILE = click.Path(path_type=pathlib.Path)

for_user = click.option(
    "--user", "for_user", is_flag=True, help="A service of your own user, without root. It uses your own settings and data."
)
below = click.option(
    "--root",
    type=_FILE,
    help="Work in the files of another system, such as an image that is mounted there; all other paths are those inside it.",
)


@main.group(epilog=EXIT_CODES)
def service() -> None:
    """Run `edge-agent serve` as a systemd service: from every start of the device, limited, and watched.

    Nothing is started or stopped here: `install` and `remove` print the commands for that.
    """


@service.command(epilog=EXIT_CODES)
@click.option("--print", "only_print", is_flag=True, help="Print the unit and write nothing. Needs no root.")
@click.option("--replace", is_flag=True, help="Replace a unit that differs. The old one stays beside it, as edge-agent.service.old.")
@for_user
@below
@click.option("--run-as", metavar="NAME", help=f"The system user that the service runs as.  [default: {_USER}]")
@click.option("--host", help="The address on which it listens. Without it, serve_host in config.toml counts.")
@click.option(
    "--port",
    type=click.IntRange(1024, 65_535),
    help="The port on which it listens, 1024 or higher. Without it, serve_port in config.toml counts.",
)
@click.option("--cloud-key-file", type=_FILE, help="A file with the cloud's key. systemd reads it as root and hands it to the service.")
@click.option("--token-file", type=_FILE, help="A file with the token of the clients, handed over in the same way.")
@click.option("--operator-token-file", type=_FILE, help="A file with the token of the operator, handed over in the same way.")
@click.option(
    "--kiosk", "is_kiosk", is_flag=True, help="Serve visitors, and show their page full-screen on this device's own screen from its start."
)
@with_settings("model", *PROFILE, "adapter", "cloud_url", "cloud_model", load=dict)
def install(
    config: dict[str, str | None],
    only_print: bool,
    replace: bool,
    for_user: bool,
    root: pathlib.Path | None,
    run_as: str | None,
    host: str | None,
    port: int | None,
    cloud_key_file: pathlib.Path | None,
    token_file: pathlib.Path | None,
    operator_token_file: pathlib.Path | None,
    is_kiosk: bool,
    as_json: bool,
) -> None:
    """Write the unit, and print how to start it.

    The service keeps its data in /var/lib/edge-agent and reads its settings there, from config.toml, at each start. What is given
    here stands in the unit and overrules that file. Run this command again, with --replace, after a change of the model: the
    limit of memory follows from its size.

    With --kiosk it also writes a session for the screen: greetd, cage (or labwc), and Chromium with a profile that is thrown away.
    """
    from edge_agent.server.access import is_loopback

    if for_user and (run_as or root):
        raise click.UsageError("--user is for your own user; it goes with neither --run-as nor --root.")
    found, environment = _settings(config, for_user, root)
    secrets = {"cloud_key": cloud_key_file, "token": token_file, "operator_token": operator_token_file}
    files = {_SECRETS[name]: path.absolute() for name, path in secrets.items() if path is not None}
    if not is_loopback(host or found.serve_host) and not (token_file or found.serve_token_file):
        raise BadSetting(f"Others could reach {host or found.serve_host} without a token; give --token-file, or listen on 127.0.0.1.")
    screen = _screen(found, host, port, bool(token_file or found.serve_token_file), for_user) if is_kiosk else []
    unit = _unit(found, environment, None if for_user else run_as or _USER, files, host, port, is_kiosk)
    text, target = unit.text, _target(for_user, root)
    if only_print:
        if as_json:
            shown = {"kiosk": {str(file.path): file.shown for file in screen}} if is_kiosk else {}
            print_json({"path": str(target), "unit": text, "memory_max_bytes": unit.memory_max_bytes} | shown)
        else:
            echo("\n\n".join([text.rstrip("\n"), *(plain(f"# {file.path}") + "\n" + file.shown.rstrip("\n") for file in screen)]))
        return
    check_installed()
    for path in files.values():
        _check_secret((root / path.relative_to("/")) if root else path, root)
    installing.check(screen, root, replace)
    changed = _write(target, text, replace)
    next_steps = [*_to_start(unit, root), *(steps.to_start(root) if is_kiosk else [])]
    about: dict[str, Any] = {"path": str(target), "changed": changed, "memory_max_bytes": unit.memory_max_bytes, "next": next_steps}
    if is_kiosk:
        about["kiosk"] = {"changed": installing.write(screen, root), "files": [str(file.path) for file in screen]}
    if as_json:
        print_json(about | {"unreadable": [str(path) for path in _unreadable(unit)]})
        return
    echo(plain(f"{target} {'is written' if changed else 'is the same already'}."))
    if is_kiosk:
        echo(f"The session for the screen {'is written' if about['kiosk']['changed'] else 'is the same already'}: {kiosk_files.FOLDER}")
    for path in _unreadable(unit):
        say(f"edge-agent: other users may not read '{path}', so the service perhaps cannot; `chmod o+rX` allows it.", err=True)
    say(f"Settings: {found.config_file}", err=True)
    say("Next:", err=True)
    for step in next_steps:
        echo(plain(f"   {step}"), err=True)


@service.command(epilog=EXIT_CODES)
@for_user
@below
@with_settings(load=dict)
def remove(config: dict[str, str | None], for_user: bool, root: pathlib.Path | None, as_json: bool) -> None:
    """Remove what `install` wrote, the kiosk's session too. Settings, decisions and the queue stay."""
    target = _target(for_user, root)
    text = _read(target)
    has_screen = not for_user and bool(installing.found(root)["installed"])
    if text is None and not has_screen:
        raise BadSetting(f"There is no service in '{target}'; nothing was removed.")
    if text is not None and not text.startswith(MARK):
        raise StorageError(f"'{target}' was not written by `edge-agent service install`; remove it yourself if you mean it.")
    removed = installing.remove(root) if has_screen else []
    try:
        for link in (target.parent / name / NAME for name in _TARGETS):
            if link.is_symlink():
                link.unlink()
        target.unlink(missing_ok=True)
    except OSError as error:
        raise _refused(target, error, for_user) from error
    next_steps = [] if root else [f"{_systemctl(for_user)} stop edge-agent", f"{_systemctl(for_user)} daemon-reload"]
    if removed and not root:
        next_steps = [*steps.TO_STOP, *next_steps]
    if as_json:
        print_json({"path": str(target), "next": next_steps} | ({"kiosk": removed} if removed else {}))
        return
    if text is not None:
        echo(plain(f"{target} is removed."))
    if removed:
        echo(f"The session for the screen is removed: {kiosk_files.FOLDER}")
    say(f"Its data stays in {_settings(config, for_user, root)[0].data_folder}.", err=True)
    for step in next_steps:
        echo(f"   {step}", err=True)


@service.command(epilog=EXIT_CODES)
@for_user
@below
@with_settings(load=dict)
def status(config: dict[str, str | None], for_user: bool, root: pathlib.Path | None, as_json: bool) -> None:
    """Say whether the unit is there, and what systemd says about it."""
    target = _target(for_user, root)
    text = _read(target)
    about: dict[str, Any] = {"path": str(target), "installed": text is not None}
    about |= {"ours": text is not None and text.startswith(MARK), "systemd": None if root else _shown(NAME, for_user)}
    screen: dict[str, Any] = {} if for_user else installing.found(root)
    if screen.get("installed"):
        about["kiosk"] = {**screen, "systemd": None if root else _shown(kiosk_files.UNIT, for_user=False)}
    if as_json:
        print_json(about)
        return
    whose = "" if about["ours"] or text is None else " (not written by edge-agent)"
    echo(plain(f"unit     {target}{whose}" if text is not None else f"unit     none; `edge-agent service install` writes {target}"))
    state = about["systemd"]
    if state is None:
        echo("systemd  does not run here")
    else:
        said = f": {state['StatusText']}" if state["StatusText"] else ""
        echo(plain(f"systemd  {state['ActiveState']} ({state['SubState']}), started again {state['NRestarts']} times{said}"))
        echo(plain(f"at boot  {state['UnitFileState'] or 'unknown'}"))
    if "kiosk" in about:
        for line in steps.told(about["kiosk"]):
            echo(plain(line))


def _screen(found: settings.Settings, host: str | None, port: int | None, has_token: bool, for_user: bool) -> list[kiosk_files.File]:
    """The files of the session. Raises `BadSetting` where its page could not reach the server, or not ask it."""
    from edge_agent.server.access import is_loopback

    if for_user:
        raise click.UsageError("--kiosk is for the whole device; it does not go with --user.")
    address = host or found.serve_host
    if address not in ("127.0.0.1", "localhost", "0.0.0.0", "::"):  # noqa: S104  # compared, not listened on
        raise BadSetting(f"The screen's page comes from 127.0.0.1, and the server would listen on {address} alone; give --host 0.0.0.0.")
    if has_token and is_loopback(address):
        raise BadSetting(
            "The screen's page has no token. Leave --token-file out, because only this device can reach 127.0.0.1; or let others "
            "reach the server, too, with --host 0.0.0.0: then they need the token, and the screen does not."
        )
    return kiosk_files.all_files(port or found.serve_port, found.kiosk_language)


def _settings(flags: dict[str, str | None], for_user: bool, root: pathlib.Path | None) -> tuple[settings.Settings, dict[str, str]]:
    """The settings that the service will have, and what its environment must hold for that. Raises `BadSetting`."""
    flags = dict(flags)
    for name in ("model", "adapter"):
        if (value := flags.get(name)) and pathlib.Path(value).expanduser().is_file():
            flags[name] = str(pathlib.Path(value).expanduser().resolve())
    given = {settings.ENVIRONMENT[name]: value for name, value in flags.items() if value is not None}
    if for_user:
        home = os.environ.get(settings.HOME)
        where = {settings.HOME: str(pathlib.Path(home).expanduser().absolute())} if home else {}
        return loading.load(environment={**where, **given}), {**where, **given}
    folder = root / _STATE_FOLDER.relative_to("/") if root else _STATE_FOLDER
    return loading.load(environment={settings.HOME: str(folder), **given}), given


def _unit(
    found: settings.Settings,
    environment: dict[str, str],
    user: str | None,
    files: dict[str, pathlib.Path],
    host: str | None,
    port: int | None,
    is_kiosk: bool,
) -> Unit:
    """The unit for these settings. Raises `ModelMissing`, `ModelRefused` and `BadSetting`."""
    from edge_agent.model import catalog
    from edge_agent.model.memory import needed_bytes

    model = catalog.files_of(found)
    python, folders = _python()
    package = pathlib.Path(__file__).resolve().parents[3]
    if package.name not in ("site-packages", "dist-packages"):  # a checkout
        environment = {**environment, "PYTHONPATH": str(package)}
    flags = [*(["--host", host] if host else []), *(["--port", str(port)] if port else []), *(["--kiosk"] if is_kiosk else [])]
    readable = tuple(dict.fromkeys([*folders, package, *filter(None, [model.path.resolve(), model.adapter and model.adapter.resolve()])]))
    return Unit((python, "-P", "-m", "edge_agent", "serve", *flags), needed_bytes(model), user, environment, files, readable)


def _python() -> tuple[str, list[pathlib.Path]]:
    """The interpreter that runs now, and the folders that it is in: its environment's, and those of each file that its link leads to.

    A link is not followed to its end: an environment's Python finds its libraries by the name that it is called by.
    """
    name = pathlib.Path(sys.executable)
    name = name.parent.parent.resolve() / name.parent.name / name.name
    folders, at = [name.parent.parent], name
    while at.is_symlink() and len(folders) < 20:
        at = pathlib.Path(os.path.normpath(at.parent / at.readlink()))
        folders.append(at.parent.parent)
    folders += [pathlib.Path(sys.base_prefix), pathlib.Path(sys.base_prefix).resolve()]
    return str(name), [folder for folder in dict.fromkeys(folders) if folder not in (pathlib.Path("/usr"), pathlib.Path("/"))]


def _unreadable(unit: Unit) -> list[pathlib.Path]:
    """What others may not read of the files that the service needs, as far as their permissions say; nothing for one's own service."""
    from edge_agent.cli.unit import hidden

    if unit.user is None:
        return []
    bound = hidden(unit.readable)
    found = []
    for path in unit.readable:
        inside = next((one for one in bound if path.is_relative_to(one)), None)  # what leads to it is not asked: it is mounted there
        for one in (path, *(parent for parent in path.parents if inside is None or parent.is_relative_to(inside))):
            wanted = 0o001 if one != path else 0o005 if one.is_dir() else 0o004
            if one.exists() and one.stat().st_mode & wanted != wanted:
                found.append(one)
    return sorted(set(found))


def _target(for_user: bool, root: pathlib.Path | None) -> pathlib.Path:
    """Where the unit lies."""
    if for_user:
        config = os.environ.get("XDG_CONFIG_HOME", "")
        folder = pathlib.Path(config) if pathlib.PurePath(config).is_absolute() else pathlib.Path.home() / ".config"
        return folder / "systemd" / "user" / NAME
    return (root / _SYSTEM_FOLDER.relative_to("/") if root else _SYSTEM_FOLDER) / NAME


def _read(target: pathlib.Path) -> str | None:
    """The unit that is there, or None. Raises `StorageError`."""
    try:
        return target.read_text(errors="replace")
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StorageError(f"'{target}' cannot be read ({error.strerror}); check its permissions.") from error


def _write(target: pathlib.Path, text: str, replace: bool) -> bool:
    """Write the unit; returns whether it was another one before. Raises `StorageError`, for a unit that differs, too."""
    from edge_agent.core.files import replacing

    old = _read(target)
    if old == text:
        return False
    if old is not None and not replace:
        raise StorageError(f"'{target}' is there and differs from what would be written; see `service install --print`, or give --replace.")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if old is not None:
            with replacing(target.with_name(f"{NAME}.old"), "w", private=False) as file:
                file.write(old)
        with replacing(target, "w", private=False) as file:
            file.write(text)
    except OSError as error:
        raise _refused(target, error, _SYSTEM_FOLDER not in target.parents) from error
    return True


def _refused(target: pathlib.Path, error: OSError, is_own: bool) -> StorageError:
    hint = "check the folder's owner" if is_own else "run it with sudo, or install with --user"
    return StorageError(f"'{target}' cannot be written ({error.strerror or error}); {hint}.")


def _check_secret(path: pathlib.Path, root: pathlib.Path | None) -> None:
    """Raises `BadSetting` for a file of a secret that is not there, or that others can read."""
    try:
        if path.stat().st_mode & 0o077:
            raise BadSetting(f"Others can read the secret in '{path}'; make it readable only by its owner (chmod 600).")
    except OSError as error:
        hint = f"give its path inside {root}, and put it there" if root else "the service could not start without it"
        raise BadSetting(f"The file '{path}' cannot be used ({error.strerror}); {hint}.") from error


def _to_start(unit: Unit, root: pathlib.Path | None) -> list[str]:
    """The commands that start the service."""
    if root:
        return [f"systemctl --root {root} enable edge-agent"]
    if unit.user is None:
        return [
            "systemctl --user daemon-reload",
            "systemctl --user enable --now edge-agent",
            "loginctl enable-linger    # also while nobody is logged in",
        ]
    make = [f"sudo useradd --system --home-dir {_STATE_FOLDER} --shell /usr/sbin/nologin {unit.user}"] if not _exists(unit.user) else []
    return [*make, "sudo systemctl daemon-reload", "sudo systemctl enable --now edge-agent"]


def _exists(user: str) -> bool:
    import pwd

    try:
        pwd.getpwnam(user)
    except KeyError:
        return False
    return True


def _systemctl(for_user: bool) -> str:
    return "systemctl --user" if for_user else "sudo systemctl"


def _shown(unit: str, for_user: bool) -> dict[str, str] | None:
    """What systemd says about a unit; None if there is no systemd, or it cannot be asked."""
    if (program := shutil.which("systemctl")) is None:
        return None
    command = [program, *(["--user"] if for_user else []), "show", unit, f"--property={','.join(_SHOWN)}"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    found = dict(line.split("=", 1) for line in done.stdout.splitlines() if "=" in line)
    return found if done.returncode == 0 and set(_SHOWN) <= set(found) else None

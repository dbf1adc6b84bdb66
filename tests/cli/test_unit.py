"""What a unit says is what a service gets: the units are started by a real systemd, in namespaces of its own."""

import json
import pathlib
import random

from edge_agent.cli.commands.service import _python
from edge_agent.cli.unit import Unit
from edge_agent.core.errors import BadSetting
from tests.support import systemd
from tests.support.paths import ROOT

LETTERS = " %$\\'\":;{}#=[]&|<>*?~,`@!()+-._aЖ名😀"
IN_ONE = " %$HOME ${HOME} :;{}#=[]&|<>*?~,`@!()+ %h %% %i a"
PROBE = f"""\
import ctypes, json, os, pathlib, sys
sys.path.insert(0, {str(ROOT)!r})
from edge_agent.server import notify
secrets = {{one.name: one.read_text() for one in pathlib.Path(os.environ["CREDENTIALS_DIRECTORY"]).iterdir()}}
def works(what):
    try:
        what()
    except OSError:
        return False
    return True
seen = {{"argv": sys.orig_argv, "environment": dict(os.environ), "secrets": secrets, "uid": os.getuid(),
    "home": os.listdir("/root") + os.listdir("/home"), "write": works(lambda: open("/etc/x", "w")),
    "clock": ctypes.CDLL(None).adjtimex(ctypes.create_string_buffer(512)), "child": os.waitstatus_to_exitcode(os.system("true")),
    "own": works(lambda: open(os.environ["EDGE_AGENT_HOME"] + "/x", "w"))}}
pathlib.Path(os.environ["EDGE_AGENT_HOME"], os.environ["OUT"]).write_text(json.dumps(seen))
notify.status("a\\nSTOPPING=1")
notify.ready()
"""
IN_TEST = "[Unit]\nDefaultDependencies=no\n[Service]\nRestart=no\nStandardOutput=null\n"


def names() -> list[str]:
    """Names of folders: each odd character somewhere, many together, and 20 at random."""
    rng = random.Random(0)
    found = [rng.choice(("a{}b", "{}x", "x{}", " {} ")).format(c) for c in LETTERS] + [IN_ONE]
    found += ["".join(rng.choices(LETTERS, k=rng.randint(1, 20))) for _ in range(20)]
    return [name for name in found if name not in (".", "..")]


def test_every_path_and_value_that_a_unit_takes_arrives_as_it_was(tmp_path: pathlib.Path) -> None:
    python, folders = _python()
    units, wanted, n_refused = {}, {}, 0
    for number, name in enumerate(names()):
        folder = tmp_path / str(number) / name
        folder.mkdir(parents=True)
        program = folder / "python"
        program.symlink_to(python)
        (folder / "probe.py").write_text(PROBE)
        key = folder / "key"
        key.write_text(f"secret {number}")
        key.chmod(0o600)
        command = (str(program), str(folder / "probe.py"), name, "$HOME", "${HOME}", "%h", "")
        environment = {"OUT": f"{number}.json", "NAME": name, "LAST": "a\\"}
        readable = (folder, ROOT, *folders)
        try:
            text = Unit(command, 1 << 30, "edge-agent", environment, {"a-key": key}, readable).text
        except BadSetting:
            n_refused += 1
            assert set(name) & set("\\'\"")
            continue
        units[f"u{number}.service"], wanted[number] = text, (command, name)
        units[f"u{number}.service.d/test.conf"] = IN_TEST
    assert n_refused < len(names()) / 2
    with systemd.running(tmp_path / "systemd", units) as real:
        services = [unit for unit in units if unit.endswith(".service")]
        real.run("systemctl", "start", *services)
        for number, (command, name) in wanted.items():
            done = real.run("cat", f"/var/lib/edge-agent/{number}.json")
            assert done.returncode == 0, f"{name!r}: {real.run('systemctl', 'status', f'u{number}').stdout}{real.log.read_text()[-2000:]}"
            seen = json.loads(done.stdout)
            assert tuple(seen["argv"]) == command
            assert (seen["environment"]["NAME"], seen["environment"]["LAST"]) == (name, "a\\")
            assert seen["secrets"] == {"a-key": f"secret {number}"}
            assert seen["uid"] == 987 and not seen["write"] and seen["own"] and seen["child"] == 0
            assert seen["clock"] >= 0  # the queue must know whether the clock is right
            assert set(seen["home"]) <= {path.parts[2] for path in folders if path.parts[1] in ("root", "home")}
            assert seen["environment"]["EDGE_AGENT_HOME"] == "/var/lib/edge-agent"

"""A way back from an update: what is kept, what brings it back, and what a crash leaves."""

import errno
import json
import os
import pathlib
import subprocess
import sys
import time

import pytest

from edge_agent.agent.agent import Agent
from edge_agent.core.errors import ModelRefused, StorageError
from edge_agent.fetch import bundle
from edge_agent.fetch.hub import Hub
from edge_agent.fetch.pull import Puller
from edge_agent.model import catalog, previous, pulled
from edge_agent.model.calibration import waiting_beside
from tests.support.calibrations import calibrated
from tests.support.command_line import ASK, ask, run
from tests.support.gguf_files import adapter_for, gguf_with
from tests.support.hub_server import LoopbackHub
from tests.support.killed_files import after_each_kill
from tests.support.paths import DEMO
from tests.support.pulls import MODEL, NAME, Pulls

DAY_S = 86_400.0
STEM = "FogGen-0.6B-Q8_0"
QUESTION = "What is 12 + 7?\nA. 18\nB. 19"


def version(n: int) -> bytes:
    """The demo model, with padding that makes another file of it."""
    return DEMO.read_bytes() + bytes(32 * n)


def packed(tmp_path: pathlib.Path, n: int, adapter: bytes | None = None, calibrate: bool = False) -> pathlib.Path:
    """A bundle with version `n` of one model."""
    folder = tmp_path / f"v{n}"
    folder.mkdir(exist_ok=True)
    model, on_top, made = folder / f"{STEM}.gguf", folder / "mine-adapter.gguf", folder / "c.json"
    model.write_bytes(version(n))
    if adapter:
        on_top.write_bytes(adapter)
    if calibrate:
        made.write_text(calibrated(model, tau=n / 4).to_json())
    bundle.pack(folder / "kiosk.bundle", model, {}, made if calibrate else None, on_top if adapter else None)
    return folder / "kiosk.bundle"


def pull(path: pathlib.Path, home: pathlib.Path) -> None:
    with Hub({"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HUB_OFFLINE": "1"}) as hub:
        puller = Puller(home / "models", hub, True, check_file=lambda path, base=None: None, config_file=home / "config.toml")
        puller.calibrations = home / "calibrations"
        puller.pull(str(path))


def in_force(models: pathlib.Path, file: str = f"{STEM}.gguf") -> str:
    return catalog.sha256_of(models / file)


def sha256_of(n: int, tmp_path: pathlib.Path) -> str:
    return catalog.sha256_of(tmp_path / f"v{n}" / f"{STEM}.gguf")


def answer(models: pathlib.Path, at_s: float) -> list[str]:
    """What an agent does that has answered with what is in force."""
    return previous.note_answer({models / f"{STEM}.gguf": in_force(models)}, at_s)


# --- from the command line, with real bundles


def test_bundle_that_replaces_a_model_can_be_undone_and_redone_offline(home: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """With the calibration of each version, which is for exactly its bytes."""
    bundles = [packed(tmp_path, n, calibrate=True) for n in (1, 2)]
    first = json.loads(run("pull", str(bundles[0]), "--json").stdout)
    assert first["previous"] is None
    assert run("models", "default", STEM).returncode == 0
    before = ask()
    assert before["model"]["sha256"] == sha256_of(1, tmp_path) and before["tau"] == 0.25
    done = run("pull", str(bundles[1]), "--upgrade")
    assert done.returncode == 0 and "4.7 MB" in done.stderr and "models default --previous" in done.stderr and "restart" in done.stderr
    (row,) = [row for row in json.loads(run("models", "--json").stdout) if row["name"] == "foggen"]
    assert row["files"][0]["previous"]["files"][0]["sha256"] == sha256_of(1, tmp_path)
    assert "5 MB of the version before" in run("models").stdout
    assert ask()["tau"] == 0.5
    for n in (1, 2, 1):
        done = run("models", "default", "--previous", HF_HUB_OFFLINE="1")
        assert done.returncode == 0 and sha256_of(n, tmp_path)[:12] in done.stdout and "restart" in done.stderr, done.stderr
        found = ask("--refresh")
        assert found["model"]["sha256"] == sha256_of(n, tmp_path) and found["tau"] == n / 4 and found["calibration"]
        (record,) = pulled.load(home / "models")
        assert record.sha256 == sha256_of(n, tmp_path)
        assert run("verify", STEM, "--limit", "2").returncode == 0
    shown = json.loads(run("models", "default", "--json").stdout)
    assert shown["model"] == STEM and shown["previous"]["files"][0]["sha256"] == sha256_of(2, tmp_path)
    assert run("models", "rm", STEM, "--previous", "--yes").returncode == 0
    done = run("models", "default", "--previous")
    assert done.returncode == 66 and "Nothing is kept of before" in done.stderr
    assert not list((home / "models").rglob("previous/*/*.gguf"))


def test_choice_of_another_model_can_be_undone_and_redone(home: pathlib.Path, tmp_path: pathlib.Path) -> None:
    assert run("models", "default", "--previous").returncode == 66
    assert run("pull", str(packed(tmp_path, 1))).returncode == 0  # it becomes the default, because there were no settings
    for model in ("demo", STEM):
        done = run("models", "default", "--previous", "--json")
        assert json.loads(done.stdout)["model"] == model, done.stderr
    assert run("models", "default", "demo").returncode == run("models", "default", "demo").returncode == 0
    told = json.loads(run("models", "default", "--json").stdout)
    assert (told["model"], told["previous"]) == ("demo", {"model": STEM})
    done = run("models", "default", "--previous", EDGE_AGENT_MODEL="demo")
    assert f"{STEM} is the model again" in done.stdout and "EDGE_AGENT_MODEL is set" in done.stderr
    (home / "models" / f"{STEM}.gguf").unlink()
    assert "a file that is not here" in run("models", "default").stdout
    assert run("models", "default", "--previous").returncode == 0 and run("models", "default", "--previous").returncode == 66
    assert run("models", "default", "x", "--previous").returncode == 2


def test_update_after_a_choice_is_what_is_undone(home: pathlib.Path, tmp_path: pathlib.Path) -> None:
    assert run("pull", str(packed(tmp_path, 1))).returncode == run("models", "default", STEM).returncode == 0
    assert run("pull", str(packed(tmp_path, 2)), "--upgrade").returncode == 0
    assert run("models", "default", "--previous").returncode == 0
    assert in_force(home / "models") == sha256_of(1, tmp_path) and json.loads(run("models", "default", "--json").stdout)["model"] == STEM


def test_name_of_the_catalogue_that_means_another_file_can_be_undone(server: LoopbackHub, home: pathlib.Path) -> None:
    """`foggen` is the newest of its files here; the older one is still there, under its own name."""
    server.publish("issai/foggen", {"FogGen-0.6B-Q4_K_M.gguf": version(1), "FogGen-0.6B-Q8_0.gguf": version(2)})
    assert (
        run("pull", "foggen", "--file", "Q4_K_M", HF_ENDPOINT=server.url).returncode == run("models", "default", "foggen").returncode == 0
    )
    assert run("pull", "foggen", "--file", "Q8_0", HF_ENDPOINT=server.url).returncode == 0
    assert ask()["model"]["name"] == "FogGen-0.6B-Q8_0"
    assert run("models", "default", "--previous").returncode == 0 and ask()["model"]["name"] == "FogGen-0.6B-Q4_K_M"
    assert run("models", "default", "--previous").returncode == 0 and ask()["model"]["name"] == "FogGen-0.6B-Q8_0"


def test_model_that_cannot_be_opened_names_the_way_back(home: pathlib.Path, tmp_path: pathlib.Path) -> None:
    assert run("pull", str(packed(tmp_path, 1))).returncode == run("pull", str(packed(tmp_path, 2)), "--upgrade").returncode == 0
    file = home / "models" / f"{STEM}.gguf"
    for damaged in (version(2)[:100_000], b"nothing"):
        file.write_bytes(damaged)
        for command in (ASK, ("verify", STEM, "--limit", "2"), ("serve", "--port", "0")):
            done = run(*command)
            assert done.returncode in (65, 66) and "`edge-agent models default --previous` goes back to it" in done.stderr, (command, done)
    assert run("models", "default", "--previous").returncode == 0 and ask()["model"]["sha256"] == sha256_of(1, tmp_path)


def test_server_says_at_its_start_that_its_model_has_not_answered_yet(home: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """A model that the kernel kills for its memory cannot say it."""
    assert run("pull", str(packed(tmp_path, 1))).returncode == run("pull", str(packed(tmp_path, 2)), "--upgrade").returncode == 0
    command = [sys.executable, "-m", "edge_agent", "serve", "--port", "0"]
    for has_answered in (False, True):
        with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
            assert server.stderr is not None
            lines = [server.stderr.readline() for _ in range(1 if has_answered else 2)]
            server.terminate()
        assert ("has not answered yet" in lines[0]) is not has_answered, lines
        ask()


# --- until when


def test_previous_version_goes_some_days_after_the_new_one_has_answered(home: pathlib.Path, tmp_path: pathlib.Path) -> None:
    models = home / "models"
    for n in (1, 2):
        pull(packed(tmp_path, n), home)
    kept = previous.before(models, f"{STEM}.gguf")
    assert kept and not kept.has_answered
    assert answer(models, 100 * DAY_S) == [] and answer(models, 106.9 * DAY_S) == []
    assert previous.before(models, f"{STEM}.gguf").has_answered
    assert answer(models, 107 * DAY_S) == [STEM] and previous.before(models, f"{STEM}.gguf") is None
    assert in_force(models) == sha256_of(2, tmp_path)
    assert previous.go_back(models, f"{STEM}.gguf") == ()


def test_days_begin_anew_after_going_back_and_in_a_new_database(home: pathlib.Path, tmp_path: pathlib.Path) -> None:
    models = home / "models"
    for n in (1, 2):
        pull(packed(tmp_path, n), home)
    answer(models, 100 * DAY_S)
    previous.go_back(models, f"{STEM}.gguf")
    assert answer(models, 107 * DAY_S) == [] and answer(models, 5.0) == []  # device time of another database
    assert answer(models, 107 * DAY_S) == [STEM] and in_force(models) == sha256_of(1, tmp_path)


def test_only_an_answer_of_the_new_version_counts(home: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """A server that was started before the update still answers with the old file; a remembered answer runs no model."""
    pull(packed(tmp_path, 1), home)
    with Agent.open(STEM) as agent:
        agent.ask(QUESTION)
        pull(packed(tmp_path, 2), home)
        agent.ask("What is 2 + 7?\nA. 8\nB. 9")
    assert not previous.before(home / "models", f"{STEM}.gguf").has_answered
    with Agent.open(STEM) as agent:
        assert agent.unproven and agent.ask(QUESTION)
    assert previous.before(home / "models", f"{STEM}.gguf").has_answered
    previous.go_back(home / "models", f"{STEM}.gguf")
    with Agent.open(STEM) as agent:
        assert agent.ask(QUESTION).recalled and agent.unproven
    assert not previous.before(home / "models", f"{STEM}.gguf").has_answered


def test_nearly_full_disk_ends_the_wait_but_never_before_an_answer(home: pathlib.Path, tmp_path: pathlib.Path) -> None:
    for n in (1, 2):
        pull(packed(tmp_path, n), home)
    full = {"cache_min_free_mib": 10**12}
    Agent.open(STEM, **full).close()
    assert previous.before(home / "models", f"{STEM}.gguf")
    for _ in range(2):
        with Agent.open(STEM, **full) as agent:
            agent.ask(QUESTION, refresh=True)
    assert previous.before(home / "models", f"{STEM}.gguf") is None


def test_version_that_never_answered_does_not_push_out_the_one_that_did(home: pathlib.Path, tmp_path: pathlib.Path) -> None:
    models = home / "models"
    for n in (1, 2, 3):
        pull(packed(tmp_path, n), home)
    previous.go_back(models, f"{STEM}.gguf")
    assert in_force(models) == sha256_of(1, tmp_path)
    previous.go_back(models, f"{STEM}.gguf")
    answer(models, 1.0)
    pull(packed(tmp_path, 4), home)  # version 3 has answered, so it is the one to go back to
    previous.go_back(models, f"{STEM}.gguf")
    assert in_force(models) == sha256_of(3, tmp_path)
    assert len(list(models.rglob("*.gguf"))) == 2  # never more than two


def test_pull_of_the_older_version_is_a_way_back_too(home: pathlib.Path, tmp_path: pathlib.Path) -> None:
    for n in (1, 2, 1):
        pull(packed(tmp_path, n), home)
    assert [record.sha256 for record in previous.before(home / "models", f"{STEM}.gguf").records] == [sha256_of(2, tmp_path)]


def test_damaged_file_is_neither_kept_nor_brought_back(home: pathlib.Path, tmp_path: pathlib.Path) -> None:
    models = home / "models"
    pull(packed(tmp_path, 1), home)
    (models / f"{STEM}.gguf").write_bytes(version(1)[:-1] + b"x")
    pull(packed(tmp_path, 2), home)
    assert previous.before(models, f"{STEM}.gguf") is None
    pull(packed(tmp_path, 3), home)
    kept = models / "previous" / STEM / f"{STEM}.gguf"
    kept.write_bytes(version(2)[:-1] + b"x")
    with pytest.raises(ModelRefused, match="damaged"):
        previous.go_back(models, f"{STEM}.gguf")
    assert in_force(models) == sha256_of(3, tmp_path)


def test_model_and_adapter_of_one_bundle_come_back_together(home: pathlib.Path, tmp_path: pathlib.Path) -> None:
    models, adapters = home / "models", [adapter_for("qwen3"), adapter_for("qwen3") + bytes(32)]
    for n, adapter in enumerate(adapters, 1):
        pull(packed(tmp_path, n, adapter), home)
    kept = previous.before(models, "mine-adapter.gguf")
    assert kept and len(kept.records) == 2 and kept == previous.before(models, f"{STEM}.gguf")
    assert run("models", "default", "--previous").returncode == 0
    assert in_force(models) == sha256_of(1, tmp_path) and (models / "mine-adapter.gguf").read_bytes() == adapters[0]
    assert run("models", "default", "--previous").returncode == 0
    assert in_force(models) == sha256_of(2, tmp_path) and (models / "mine-adapter.gguf").read_bytes() == adapters[1]


def test_calibration_that_waits_comes_back_with_its_model(home: pathlib.Path, tmp_path: pathlib.Path) -> None:
    models = home / "models"
    waiting = waiting_beside(models / f"{STEM}.gguf")
    pull(packed(tmp_path, 1), home)
    waiting.write_text("first")
    pull(packed(tmp_path, 2), home)
    waiting.unlink()
    previous.go_back(models, f"{STEM}.gguf")
    assert waiting.read_text() == "first"
    previous.go_back(models, f"{STEM}.gguf")
    assert not waiting.exists()
    previous.go_back(models, f"{STEM}.gguf")
    assert waiting.read_text() == "first"


# --- crashes, locks and disks


def test_killed_update_leaves_one_version_in_force_and_is_done_by_the_same_command(server: LoopbackHub, folder: pathlib.Path) -> None:
    """At each change to a file. The next pull has version 2 in force and version 1 kept."""
    two = MODEL + b"2"
    server.publish("a/b", {NAME: MODEL})
    pulls = Pulls(server, folder)
    pulls()
    server.publish("a/b", {NAME: two})
    update = lambda: Pulls(server, folder)(upgrade=True)  # noqa: E731
    for at in after_each_kill(folder, update):
        assert (folder / NAME).read_bytes() in (MODEL, two), at
        previous.finish(folder)
        update()
        assert (folder / NAME).read_bytes() == two
        kept = previous.before(folder, NAME)
        assert kept is not None and (kept.folder / NAME).read_bytes() == MODEL, at
        assert previous.go_back(folder, NAME) and (folder / NAME).read_bytes() == MODEL
        assert pulled.load(folder)[0].sha256 == catalog.sha256_of(folder / NAME)


@pytest.mark.parametrize("with_links", [True, False])
def test_killed_way_back_leaves_one_version_in_force_and_is_finished_by_the_next_call(
    server: LoopbackHub, folder: pathlib.Path, with_links: bool
) -> None:
    def no_links(path: object, target: object) -> None:
        raise OSError(errno.EPERM, "no hard links here")

    two, link = MODEL + b"2", os.link if with_links else no_links
    server.publish("a/b", {NAME: MODEL})
    Pulls(server, folder)()
    server.publish("a/b", {NAME: two})
    Pulls(server, folder)(upgrade=True)
    waiting_beside(folder / NAME).write_text("waits")
    seen = set()
    for at in after_each_kill(folder, lambda: previous.go_back(folder, NAME, link=link)):
        assert (folder / NAME).read_bytes() in (MODEL, two), at
        previous.finish(folder)
        now = (folder / NAME).read_bytes()
        seen.add(now)
        (record,), kept = pulled.load(folder), previous.before(folder, NAME)
        assert record.sha256 == catalog.sha256_of(folder / NAME), at
        assert kept is not None and (kept.folder / NAME).read_bytes() == (two if now == MODEL else MODEL), at
        assert waiting_beside(folder / NAME).exists() == (now == two), at
        previous.go_back(folder, NAME)
        assert (folder / NAME).read_bytes() == (two if now == MODEL else MODEL), at
        assert len(list(folder.rglob("*.gguf"))) == 2 and len(list(folder.rglob(".out-*"))) == 0, at
    assert seen == {MODEL, two}


def test_killed_deletion_is_finished_and_leaves_nothing(server: LoopbackHub, folder: pathlib.Path) -> None:
    for data in (MODEL, MODEL + b"2"):
        server.publish("a/b", {NAME: data})
        Pulls(server, folder)(upgrade=True)
    now = {folder / NAME: catalog.sha256_of(folder / NAME)}
    previous.note_answer(now, 1.0)
    for at in after_each_kill(folder, lambda: previous.note_answer(now, 8 * DAY_S)):
        for _ in range(2):
            previous.note_answer(now, 9 * DAY_S)
        assert (folder / NAME).read_bytes() == MODEL + b"2" and previous.before(folder, NAME) is None
        assert [path for path in (folder / "previous").iterdir() if path.name != ".lock"] == [], at


def test_update_interrupted_by_a_kill_is_finished_when_a_model_is_opened(home: pathlib.Path, tmp_path: pathlib.Path) -> None:
    models = home / "models"
    for n in (1, 2):
        pull(packed(tmp_path, n), home)
    noted = {"moves": [{"file": f"{STEM}.gguf", "comes": True, "goes": True}], "in": [], "out": []}
    group = models / "previous" / STEM
    os.link(models / f"{STEM}.gguf", group / f".out-{STEM}.gguf")
    (group / "exchange.json").write_text(json.dumps(noted))
    with Agent.open(STEM) as agent:
        assert agent.model.sha256 == sha256_of(1, tmp_path)
    assert catalog.sha256_of(group / f"{STEM}.gguf") == sha256_of(2, tmp_path)


def test_full_disk_leaves_the_old_model_in_force(server: LoopbackHub, folder: pathlib.Path) -> None:
    def full(path: object, target: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    server.publish("a/b", {NAME: MODEL})
    Pulls(server, folder)()
    with pytest.raises(StorageError, match="No space left"):
        previous.keep(folder, "FogGen-0.6B-Q4_K_M", {NAME: "0" * 64}, link=full)
    assert (folder / NAME).read_bytes() == MODEL and previous.before(folder, NAME) is None
    previous.keep(folder, "FogGen-0.6B-Q4_K_M", {NAME: "0" * 64})
    (folder / NAME).unlink()
    (folder / NAME).write_bytes(MODEL + b"2")
    with pytest.raises(StorageError, match="No space left"):
        previous.go_back(folder, NAME, link=full)
    assert (folder / NAME).read_bytes() == MODEL + b"2" and previous.before(folder, NAME)


@pytest.mark.parametrize("text", ["", "[]", "{", '["a"]', '{"a": 1}', "[1, 2]", "[" * 5000, '{"moves": [], "in": 3, "out": []}', "\x00"])
def test_damaged_notes_stop_nothing_but_the_way_back(text: str, home: pathlib.Path, tmp_path: pathlib.Path) -> None:
    models = home / "models"
    for n in (1, 2):
        pull(packed(tmp_path, n), home)
    for name in ("default.json", f"{STEM}/answered.json", f"{STEM}/exchange.json", f"{STEM}/pulled.json"):
        (models / "previous" / name).write_text(text)
    with Agent.open(STEM) as agent:
        assert agent.ask(QUESTION).model.sha256 == sha256_of(2, tmp_path)
    done = run("models", "default", "--previous")
    assert done.returncode in (66, 74) and "Traceback" not in done.stderr
    assert run("models", "--json").returncode == 0


def test_agent_does_not_wait_for_an_update_when_it_tidies(home: pathlib.Path, tmp_path: pathlib.Path) -> None:
    from edge_agent.core.files import lock

    for n in (1, 2):
        pull(packed(tmp_path, n), home)
    with (home / "models" / "previous" / ".lock").open("w") as held:
        lock(held)
        began = time.monotonic()
        assert answer(home / "models", 1.0) == [] and time.monotonic() - began < 5
    assert not previous.before(home / "models", f"{STEM}.gguf").has_answered


def test_model_of_another_name_is_left_alone(home: pathlib.Path, tmp_path: pathlib.Path) -> None:
    for n in (1, 2):
        pull(packed(tmp_path, n), home)
    other = tmp_path / "other.gguf"
    for data in (gguf_with(), gguf_with() + bytes(32)):
        other.write_bytes(data)
        pull(other, home)
    assert previous.before(home / "models", f"{STEM}.gguf") and previous.before(home / "models", "other.gguf")

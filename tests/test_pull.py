"""What `pull` does against a Hub on loopback that speaks the real one's routes, whole and failing."""

import fcntl
import hashlib
import json
import os
import pathlib
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import click
import httpx
import pytest

from convert.__main__ import main as convert_command
from edge_agent import catalog, pins, pull
from edge_agent.cli import main
from edge_agent.cli.bundle import bundle as bundle_command
from edge_agent.download import Downloader, Progress
from edge_agent.errors import DownloadFailed, ModelError, ModelMissing, ModelRefused, StorageError
from edge_agent.hub import Hub, is_safe, parse
from edge_agent.pull import MustBeMade, Puller, checkpoint_folder
from tests.conftest import DEMO
from tests.hub_server import LoopbackHub
from tests.test_cli import run

MODEL = b"GGUF" + bytes(range(256)) * 4000  # a megabyte; what it holds is looked at by `check_file` alone
NAME = "FogGen-0.6B-Q4_K_M.gguf"
SHA256 = hashlib.sha256(MODEL).hexdigest()


@pytest.fixture
def folder(tmp_path: pathlib.Path) -> pathlib.Path:
    return tmp_path / "models"


class Pulls:
    """A puller against the server, without waiting between tries; `seen` is what it reported, `checked` the files it opened."""

    def __init__(self, server: LoopbackHub, folder: pathlib.Path, **environment: str) -> None:
        self.seen: list[Progress] = []
        self.checked: list[str] = []
        self.pauses: list[float] = []
        token = environment.get("HF_TOKEN")
        self.downloader = Downloader(token, pause=self.pauses.append)
        self.hub = Hub({"HF_ENDPOINT": server.url, **environment}, self.downloader)
        self.folder = folder

    def __call__(self, what: str = "a/b", file: str | None = None, upgrade: bool = False) -> pull.Installed:
        puller = Puller(self.folder, self.hub, upgrade, self.seen.append, lambda path: self.checked.append(path.name))
        return puller.pull(what, file)


@pytest.fixture
def pulls(server: LoopbackHub, folder: pathlib.Path) -> Iterator[Pulls]:
    server.publish("a/b", {NAME: MODEL, "README.md": b"# b"})
    made = Pulls(server, folder)
    yield made
    made.downloader.__exit__()


def left_over(folder: pathlib.Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir() if not p.name.startswith(".pulled")) if folder.exists() else []


def test_model_is_fetched_checked_and_recorded(server: LoopbackHub, pulls: Pulls, folder: pathlib.Path) -> None:
    installed = pulls()
    assert installed.path.read_bytes() == MODEL and installed.sha256 == SHA256 and installed.is_new
    assert installed.revision == server.repositories["a/b"].main and pulls.checked == [NAME]
    (record,) = pins.load(folder)
    assert (record.source, record.path, record.sha256, record.file) == ("hub:a/b", NAME, SHA256, NAME) and record.pulled_at
    assert left_over(folder) == [NAME, pins.FILE]
    assert pulls.seen[-1].n_bytes == pulls.seen[-1].total_bytes == len(MODEL)


def test_second_pull_costs_no_request(server: LoopbackHub, pulls: Pulls) -> None:
    pulls()
    n = len(server.requests) + len(server.large.requests)
    assert not pulls().is_new and len(server.requests) + len(server.large.requests) == n


def test_drops_in_the_middle_are_resumed_where_they_happened(server: LoopbackHub, pulls: Pulls) -> None:
    server.large.drops = [300_000, 1, 0, 400_000]
    assert pulls().path.read_bytes() == MODEL
    assert server.large.sent == len(MODEL)  # no byte twice
    assert [r.headers.get("Range") for r in server.large.requests] == [
        None,
        "bytes=300000-",
        "bytes=300001-",
        "bytes=300001-",
        "bytes=700001-",
    ]
    assert sum(bool(step.trouble) for step in pulls.seen) == len(pulls.pauses) == 4


def test_pull_that_gave_up_goes_on_in_another_process(server: LoopbackHub, pulls: Pulls, folder: pathlib.Path) -> None:
    server.large.drops = [500_000, 0, 0, 0, 0, 0]
    with pytest.raises(DownloadFailed, match="goes on from there"):
        pulls()
    assert not (folder / NAME).exists() and pins.load(folder) == []
    assert pulls().path.read_bytes() == MODEL and server.large.sent == len(MODEL)


def test_killed_pull_leaves_nothing_under_the_name_and_is_resumed(server: LoopbackHub, home: pathlib.Path) -> None:
    server.publish("a/b", {NAME: MODEL})
    killed = threading.Event()
    server.large.drops, server.large.before_drop = [500_000], lambda: killed.wait(60)
    command = [sys.executable, "-m", "edge_agent", "pull", "a/b"]
    process = subprocess.Popen(command, env={**os.environ, "HF_ENDPOINT": server.url}, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    while not (parts := list((home / "models").glob(f".*.part/{NAME}"))) or not parts[0].stat().st_size:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    killed.set()
    assert not (home / "models" / NAME).exists()
    done = run("pull", "a/b", HF_ENDPOINT=server.url)  # no model: whole, and refused by the check
    assert done.returncode == 66 and "GGUF version" in done.stderr and left_over(home / "models") == []
    assert server.large.requests[-1].headers["Range"].startswith("bytes=")


@pytest.mark.parametrize(
    "change", [lambda data: b"GGUX" + data[4:], lambda data: data[:-1] + b"!", lambda data: data[:500_000] + b"?" + data[500_001:]]
)
def test_wrong_bytes_never_get_the_name(server: LoopbackHub, pulls: Pulls, folder: pathlib.Path, change: object) -> None:
    server.large.change = change
    with pytest.raises(DownloadFailed, match="nothing was kept"):
        pulls()
    assert left_over(folder) == [] and pulls.checked == []
    server.large.change = bytes
    assert pulls().path.read_bytes() == MODEL


def test_pointer_instead_of_the_file_is_recognised(server: LoopbackHub, pulls: Pulls, folder: pathlib.Path) -> None:
    server.large.change = lambda data: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"
    with pytest.raises(DownloadFailed, match="LFS pointer"):
        pulls()
    assert left_over(folder) == []


def test_file_longer_than_listed_is_cut_off(server: LoopbackHub, pulls: Pulls, folder: pathlib.Path) -> None:
    server.large.change = lambda data: data + b"more"
    with pytest.raises(DownloadFailed, match=r"announces .* 1024008 bytes"):
        pulls()
    assert left_over(folder) == []


def test_part_that_went_bad_on_the_disk_is_found_out(server: LoopbackHub, pulls: Pulls, folder: pathlib.Path) -> None:
    server.large.drops = [500_000, 0, 0, 0, 0, 0]
    with pytest.raises(DownloadFailed):
        pulls()
    (part,) = folder.glob(f".*.part/{NAME}")
    part.write_bytes(bytes(500_000))
    with pytest.raises(DownloadFailed, match="not the file that was expected"):
        pulls()
    assert pulls().path.read_bytes() == MODEL


def test_server_that_ignores_ranges_costs_time_only(server: LoopbackHub, pulls: Pulls) -> None:
    server.large.drops, server.large.ignores_range = [600_000], True
    assert pulls().path.read_bytes() == MODEL


def test_server_that_is_busy_is_asked_again_when_it_says(server: LoopbackHub, pulls: Pulls) -> None:
    server.large.statuses = [503, 429]
    assert pulls().is_new and pulls.pauses == [1.0, 1.0]


def test_nobody_there_is_told_after_some_tries(pulls: Pulls, folder: pathlib.Path) -> None:
    pulls.hub.endpoint = "http://127.0.0.1:9"
    with pytest.raises(DownloadFailed, match=r"127\.0\.0\.1 cannot be reached .* check the network"):
        pulls()
    assert left_over(folder) == []


def test_file_that_is_no_model_is_refused_and_not_kept(server: LoopbackHub, pulls: Pulls, folder: pathlib.Path) -> None:
    with pytest.raises(ModelRefused):
        Puller(folder, pulls.hub).pull("a/b")
    assert left_over(folder) == []


def test_full_disk_is_told_before_anything_is_fetched(pulls: Pulls, folder: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr("edge_agent.download.shutil.disk_usage", lambda path: usage)
    with pytest.raises(StorageError, match="make room"):
        pulls()
    assert left_over(folder) == []


def test_disk_that_fills_up_is_told_and_cleaned(server: LoopbackHub, home: pathlib.Path) -> None:
    server.publish("a/b", {NAME: MODEL})
    command = f"ulimit -f 400; exec {sys.executable} -m edge_agent pull a/b"  # no file may grow beyond 400 KiB
    environment = {**os.environ, "HF_ENDPOINT": server.url}
    done = subprocess.run(["bash", "-c", command], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 74 and "check the disk's space" in done.stderr and len(done.stderr.strip().splitlines()) == 1
    assert left_over(home / "models") == []


def test_token_reaches_the_hub_and_no_other_host(server: LoopbackHub, folder: pathlib.Path) -> None:
    server.tokens.add("hf_canary")
    server.publish("a/b", {NAME: MODEL}, gated=True)
    pulls = Pulls(server, folder, HF_TOKEN="hf_canary")
    assert pulls().path.read_bytes() == MODEL
    assert {request.headers["Authorization"] for request in server.requests} == {"Bearer hf_canary"}
    assert all("Authorization" not in request.headers for request in server.large.requests)
    assert all(b"hf_canary" not in path.read_bytes() for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize(
    ("kind", "token", "words"),
    [
        ({"gated": True}, None, "accepts? its licence|accept its licence: sign in"),
        ({"private": True}, None, "set HF_TOKEN if it is private"),
        ({}, "hf_wrong", "does not know your HF_TOKEN"),
    ],
)
def test_refusal_says_what_to_do(server: LoopbackHub, folder: pathlib.Path, kind: dict, token: str | None, words: str) -> None:
    server.publish("a/b", {NAME: MODEL}, **kind)
    with pytest.raises(ModelError, match=words) as caught:
        Pulls(server, folder, **({"HF_TOKEN": token} if token else {}))()
    assert "\n" not in str(caught.value) and "hf_wrong" not in str(caught.value) and caught.value.exit_code == 66


def test_unknown_names_revisions_and_files(pulls: Pulls) -> None:
    for what in ("nobody/nothing", "a/b@0123", "a/b@" + "0" * 40):
        with pytest.raises(ModelMissing):
            pulls(what)
    with pytest.raises(ModelMissing, match=NAME):
        pulls("a/b", "Q8_0")
    with pytest.raises(ModelMissing, match="nothing to pull"):
        pulls("no such thing")


def test_several_files_are_chosen_by_name_or_quantization(server: LoopbackHub, pulls: Pulls, folder: pathlib.Path) -> None:
    server.publish("a/c", {"x-Q4_K_M.gguf": MODEL, "sub/x-Q8_0.gguf": MODEL + b"8"})
    with pytest.raises(ModelMissing, match=r"--file.*x-Q4_K_M\.gguf, sub/x-Q8_0\.gguf"):
        pulls("a/c")
    assert pulls("a/c", "q8_0").path == folder / "x-Q8_0.gguf"
    assert pulls("a/c", "x-Q4_K_M.gguf").path == folder / "x-Q4_K_M.gguf"
    assert not pulls("a/c", "Q8_0").is_new


def test_first_pull_pins_the_commit_and_an_upgrade_moves_it(server: LoopbackHub, pulls: Pulls, folder: pathlib.Path) -> None:
    first = pulls().revision
    second = server.publish("a/b", {NAME: MODEL + b"2"})
    (folder / NAME).unlink()
    assert pulls().revision == first and (folder / NAME).read_bytes() == MODEL
    upgraded = pulls(upgrade=True)
    assert upgraded.revision == second and upgraded.path.read_bytes() == MODEL + b"2" and pulls().revision == second


def test_commit_that_was_rewritten_is_refused(server: LoopbackHub, pulls: Pulls, folder: pathlib.Path) -> None:
    """Other bytes under a pinned commit, with a hash to match: only the record of the first pull can tell."""
    pulls()
    (folder / NAME).unlink()
    other = MODEL[:-1] + b"x"
    server.repositories["a/b"].commits[server.repositories["a/b"].main][NAME] = other
    server.large.blobs[hashlib.sha256(other).hexdigest()] = other
    with pytest.raises(DownloadFailed, match="pulled first"):
        pulls()
    assert left_over(folder) == [pins.FILE]


def test_offline_after_a_pull_it_is_there_and_nothing_is_asked(server: LoopbackHub, pulls: Pulls, folder: pathlib.Path) -> None:
    pulls()
    n = len(server.requests)
    offline = Pulls(server, folder, HF_HUB_OFFLINE="1")
    assert offline().path.read_bytes() == MODEL and not offline().is_new
    with pytest.raises(ModelMissing, match="HF_HUB_OFFLINE"):
        offline("a/other")
    assert len(server.requests) == n


def test_file_of_another_source_is_not_replaced(server: LoopbackHub, pulls: Pulls, folder: pathlib.Path) -> None:
    pulls()
    server.publish("stranger/b", {NAME: MODEL + b"!"})
    with pytest.raises(ModelRefused, match="from hub:a/b"):
        pulls("stranger/b")
    assert (folder / NAME).read_bytes() == MODEL


def test_damaged_file_is_fetched_again(pulls: Pulls, folder: pathlib.Path) -> None:
    pulls()
    (folder / NAME).write_bytes(MODEL[:-1] + b"?")
    assert pulls().is_new and (folder / NAME).read_bytes() == MODEL


def test_only_safetensors_ends_with_the_commands_that_make_the_file(server: LoopbackHub, folder: pathlib.Path) -> None:
    server.publish("issai/foggen-r15-oe", {"model.safetensors": b"x", "config.json": b"{}"})
    done = run("pull", "foggen-r15-oe", HF_ENDPOINT=server.url)
    assert done.returncode == 66 and len(done.stderr.strip().splitlines()) == 1
    convert, bundle = done.stdout.splitlines()
    assert convert.startswith("python -m convert issai/foggen-r15-oe ") and "--answer-kind text" in convert
    assert bundle == "edge-agent bundle FogGen-0.6B-R15-OE-Q4_K_M.gguf --out FogGen-0.6B-R15-OE-Q4_K_M.bundle"
    group = click.Context(main, **main.context_settings)  # without it click would remember another --help for the command
    convert_command.make_context("convert", shlex.split(convert)[3:])
    bundle_command.make_context("bundle", shlex.split(bundle)[2:], parent=group)
    told = json.loads(run("pull", "foggen-r15-oe", "--json", HF_ENDPOINT=server.url).stdout)
    assert told["commands"] == [convert, bundle]
    with pytest.raises(MustBeMade):
        Pulls(server, folder)("issai/foggen-r15-oe")


def test_catalogue_name_with_a_published_file_is_pulled_and_answers_to_its_name(server: LoopbackHub, home: pathlib.Path) -> None:
    server.publish("issai/foggen", {NAME: DEMO.read_bytes(), "model.safetensors": b"x"})
    done = run("pull", "foggen", "--json", HF_ENDPOINT=server.url)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["alias"] == "foggen" and told["sha256"] == catalog.sha256_of(DEMO)
    asked = run("ask", "What is 2 + 2?", "--option", "3", "--option", "4", "--model", "foggen", "--json")
    assert asked.returncode == 0 and json.loads(asked.stdout)["model"]["sha256"] == told["sha256"]


def test_bundled_model_needs_no_pull(pulls: Pulls) -> None:
    assert pulls("demo").path == DEMO and not pulls("demo").is_new


# --- addresses and files


def address(server: LoopbackHub, data: bytes = MODEL) -> str:
    server.large.blobs[f"files/{NAME}"] = data
    return f"{server.large.url}/files/{NAME}?signature=secret"


def test_address_is_pulled_resumed_and_recorded_without_its_query(server: LoopbackHub, pulls: Pulls, folder: pathlib.Path) -> None:
    server.large.drops = [300_000]
    assert pulls(address(server)).path.read_bytes() == MODEL
    assert server.large.requests[-1].headers["If-Range"] and server.large.sent == len(MODEL)
    (record,) = pins.load(folder)
    assert record.source == f"{server.large.url}/files/{NAME}" and "secret" not in (folder / pins.FILE).read_text()
    assert record.alias is None  # a stranger's file does not take a catalogue name
    assert not pulls(address(server)).is_new


def test_address_whose_file_changed_is_refused_until_an_upgrade(server: LoopbackHub, pulls: Pulls, folder: pathlib.Path) -> None:
    pulls(address(server))
    (folder / NAME).unlink()
    with pytest.raises(DownloadFailed, match="--upgrade"):
        pulls(address(server, MODEL + b"2"))
    assert pulls(address(server, MODEL + b"2"), upgrade=True).path.read_bytes() == MODEL + b"2"


@pytest.mark.parametrize("path", ["", "/", "/x.txt", "/%2e%2e/.gguf", "/..%2f..%2fx.gguf%00", "/.hidden.gguf"])
def test_address_without_a_plain_file_name_is_refused(server: LoopbackHub, pulls: Pulls, folder: pathlib.Path, path: str) -> None:
    with pytest.raises(ModelRefused, match="plain name"):
        pulls(server.large.url + path)
    assert not server.large.requests and left_over(folder) == []


def test_page_of_a_captive_portal_is_no_model(server: LoopbackHub, folder: pathlib.Path) -> None:
    server.raw = b"<!DOCTYPE html><title>Please log in</title>"
    with pytest.raises(DownloadFailed, match="captive portal"):
        Pulls(server, folder)()
    with pytest.raises(ModelRefused, match="no GGUF"):
        Puller(folder, Hub({"HF_ENDPOINT": server.url})).pull(f"{server.url}/{NAME}")
    assert left_over(folder) == []


def test_file_here_is_copied_and_known_by_its_name(pulls: Pulls, folder: pathlib.Path, tmp_path: pathlib.Path) -> None:
    (tmp_path / NAME).write_bytes(MODEL)
    installed = pulls(str(tmp_path / NAME))
    assert installed.path == folder / NAME and installed.alias == "foggen" and catalog.resolve("foggen", folder) == folder / NAME
    assert not pulls(str(tmp_path / NAME)).is_new
    (tmp_path / NAME).write_bytes(MODEL + b"2")
    with pytest.raises(ModelRefused, match="--upgrade"):
        pulls(str(tmp_path / NAME))
    assert pulls(str(tmp_path / NAME), upgrade=True).sha256 != installed.sha256


def respond(routes: dict[str, httpx.Response]) -> httpx.MockTransport:
    return httpx.MockTransport(lambda request: routes[str(request.url)])


@pytest.mark.parametrize("location", ["http://elsewhere.example/x", "ftp://x/y", "file:///etc/passwd", "//"])
def test_redirect_away_from_https_is_refused(folder: pathlib.Path, location: str) -> None:
    transport = respond({"https://a.example/x": httpx.Response(302, headers={"Location": location})})
    with pytest.raises(DownloadFailed):
        Downloader(transport=transport, pause=lambda s: None).fetch("https://a.example/x", folder / "x")
    assert left_over(folder) == []


def test_endless_redirects_end(folder: pathlib.Path) -> None:
    transport = respond({"https://a.example/x": httpx.Response(302, headers={"Location": "/x"})})
    with pytest.raises(DownloadFailed, match="from one address to the next"):
        Downloader(transport=transport).fetch("https://a.example/x", folder / "x")


def test_two_at_once_do_not_write_into_one_file(server: LoopbackHub, pulls: Pulls, folder: pathlib.Path) -> None:
    server.large.drops = [500_000, 0, 0, 0, 0, 0]
    with pytest.raises(DownloadFailed):
        pulls()
    (lock,) = folder.glob(".*.part/lock")
    with lock.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(DownloadFailed, match="Another process"):
            pulls()
    assert pulls().path.read_bytes() == MODEL


# --- what the Hub says is a stranger's


@pytest.mark.parametrize(
    "path", ["../x.gguf", "/etc/x.gguf", "a\\..\\x.gguf", "a/../../x.gguf", "a//x.gguf", "x\n.gguf", "", "C:x.gguf", "x" * 501]
)
def test_path_that_leaves_the_folder_is_refused(server: LoopbackHub, pulls: Pulls, folder: pathlib.Path, path: str) -> None:
    assert not is_safe(path)
    server.lies[NAME] = {"rfilename": path}
    with pytest.raises(DownloadFailed, match="no plain path"):
        pulls()
    assert left_over(folder) == []


NO_LISTS = [
    b"", b"[]", b"{}", b'{"sha": "x", "siblings": []}', b'{"sha": 1}', b"[" * 100_000,
    json.dumps({"sha": "a" * 40, "siblings": {}}).encode(), json.dumps({"sha": "a" * 40, "siblings": [1]}).encode(),
]  # fmt: skip


@pytest.mark.parametrize("answer", NO_LISTS, ids=len)
def test_answer_that_is_no_list_of_files_is_refused(server: LoopbackHub, pulls: Pulls, answer: bytes) -> None:
    server.raw = answer
    with pytest.raises(DownloadFailed):
        pulls()


def test_names_of_repositories() -> None:
    assert parse("issai/foggen") == ("issai/foggen", None) and parse("a/b@main") == ("a/b", "main")
    for text in ("foggen", "a/b/c", "../b", "a/..", "a/b@", "a b/c", "/b", "a/b@x/y", ".a/b"):
        assert parse(text) is None


# --- checkpoints for the converter


CHECKPOINT = {
    "config.json": b'{"architectures": ["Qwen3ForCausalLM"]}', "tokenizer.json": b"{}", "model.safetensors.index.json": b"{}",
    "model-00001-of-00002.safetensors": b"1" * 300_000, "model-00002-of-00002.safetensors": b"2" * 300_000,
    "pytorch_model.bin": b"pickle", "README.md": b"card", "onnx/model.onnx": b"other", "original/model.safetensors": b"other",
}  # fmt: skip


def checkpoint(server: LoopbackHub, folder: pathlib.Path, source: str = "a/b", **environment: str) -> pathlib.Path:
    hub = Hub({"HF_ENDPOINT": server.url, **environment}, Downloader(pause=lambda s: None))
    return checkpoint_folder(source, folder=folder, the_hub=hub)


def test_checkpoint_is_fetched_once_with_what_a_conversion_reads(server: LoopbackHub, folder: pathlib.Path) -> None:
    commit = server.publish("a/b", CHECKPOINT)
    server.large.drops = [100_000]
    here = checkpoint(server, folder)
    assert here == folder / "a" / commit / "b"
    wanted = {path: data for path, data in CHECKPOINT.items() if "/" not in path and not path.endswith((".bin", ".md"))}
    assert {path.name: path.read_bytes() for path in here.iterdir()} == wanted
    n = len(server.requests)
    assert checkpoint(server, folder) == checkpoint(server, folder, HF_HUB_OFFLINE="1") == here and len(server.requests) == n


def test_interrupted_checkpoint_goes_on_with_the_next_file(server: LoopbackHub, folder: pathlib.Path) -> None:
    server.publish("a/b", CHECKPOINT)
    server.large.drops = [300_000, 0, 0, 0, 0, 0]
    with pytest.raises(DownloadFailed):
        checkpoint(server, folder)
    checkpoint(server, folder)
    assert server.large.sent == 600_000


def test_checkpoint_keeps_its_commit_and_names_another(server: LoopbackHub, folder: pathlib.Path) -> None:
    first = server.publish("a/b", CHECKPOINT)
    assert checkpoint(server, folder).parent.name == first
    second = server.publish("a/b", CHECKPOINT | {"config.json": b"{}"})
    (folder / "a" / first / "b" / "config.json").unlink()
    assert checkpoint(server, folder).parent.name == first
    assert checkpoint(server, folder, f"a/b@{second}").parent.name == second
    assert (
        checkpoint(server, folder).parent.name == first
        and checkpoint(server, folder, f"a/b@{second}", HF_HUB_OFFLINE="1").parent.name == second
    )


def test_checkpoint_may_be_a_folder_or_a_catalogue_name(server: LoopbackHub, folder: pathlib.Path, tmp_path: pathlib.Path) -> None:
    assert checkpoint(server, folder, str(tmp_path)) == tmp_path
    server.publish("issai/foggen", CHECKPOINT)
    assert checkpoint(server, folder, "foggen").parents[1] == folder / "issai"
    with pytest.raises(ModelMissing, match="no folder"):
        checkpoint(server, folder, "nothing")
    (tmp_path / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    with pytest.raises(ModelRefused, match="git lfs pull"):
        checkpoint(server, folder, str(tmp_path))
    server.publish("a/pickle", {"pytorch_model.bin": b"x", "config.json": b"{}"})
    with pytest.raises(ModelMissing, match="no safetensors"):
        checkpoint(server, folder, "a/pickle")

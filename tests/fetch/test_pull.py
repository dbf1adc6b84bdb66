"""What `pull` accepts, records and refuses, with a Hub on loopback that has the routes of the real one."""

import errno
import hashlib
import json
import os
import pathlib
import shlex

import click
import pytest

from convert.__main__ import main as convert_command
from edge_agent.cli import main
from edge_agent.cli.commands.bundle import bundle as bundle_command
from edge_agent.core.errors import BadSetting, DownloadFailed, ModelMissing, ModelRefused, StorageError
from edge_agent.fetch.choice import MustBeMade
from edge_agent.fetch.hub import Hub
from edge_agent.fetch.installed import copy
from edge_agent.fetch.pull import Puller
from edge_agent.model import catalog, pulled
from tests.support.command_line import run
from tests.support.hub_server import LoopbackHub
from tests.support.paths import DEMO
from tests.support.pulls import MODEL, NAME, SHA256, Pulls, left_over


def test_model_is_fetched_checked_and_recorded(server: LoopbackHub, pulls: Pulls, folder: pathlib.Path) -> None:
    installed = pulls()
    assert installed.path.read_bytes() == MODEL and installed.sha256 == SHA256 and installed.is_new
    assert installed.revision == server.repositories["a/b"].main and pulls.checked == [NAME]
    (record,) = pulled.load(folder)
    assert (record.source, record.path, record.sha256, record.file) == ("hub:a/b", NAME, SHA256, NAME) and record.pulled_at
    assert left_over(folder) == [NAME, pulled.FILE]
    assert pulls.seen[-1].n_bytes == pulls.seen[-1].total_bytes == len(MODEL)


def test_second_pull_costs_no_request(server: LoopbackHub, pulls: Pulls) -> None:
    pulls()
    n = len(server.requests) + len(server.large.requests)
    assert not pulls().is_new and len(server.requests) + len(server.large.requests) == n


def test_file_that_is_not_a_model_is_refused_and_not_kept(server: LoopbackHub, pulls: Pulls, folder: pathlib.Path) -> None:
    with pytest.raises(ModelRefused):
        Puller(folder, pulls.hub).pull("a/b")
    assert left_over(folder) == []


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
    """Different bytes at a pinned commit, with a matching hash: only the record of the first pull shows the change."""
    pulls()
    (folder / NAME).unlink()
    other = MODEL[:-1] + b"x"
    server.repositories["a/b"].commits[server.repositories["a/b"].main][NAME] = other
    server.large.blobs[hashlib.sha256(other).hexdigest()] = other
    with pytest.raises(DownloadFailed, match="pulled first"):
        pulls()
    assert left_over(folder) == [pulled.FILE]


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
    group = click.Context(main, **main.context_settings)  # without it click would store a different --help for the command
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
    (record,) = pulled.load(folder)
    assert record.source == f"{server.large.url}/files/{NAME}" and "secret" not in (folder / pulled.FILE).read_text()
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


@pytest.mark.parametrize("url", ["http://[x/y.gguf", "https://user:secret@[/y.gguf"])
def test_invalid_address_is_refused_without_repeating_it(pulls: Pulls, url: str) -> None:
    with pytest.raises(ModelMissing, match="not a valid address") as caught:
        pulls(url)
    assert "secret" not in str(caught.value)
    with pytest.raises(BadSetting, match=r"HF_ENDPOINT.* is not a plain"):
        Hub({"HF_ENDPOINT": url})


def test_page_of_a_captive_portal_is_not_a_model(server: LoopbackHub, folder: pathlib.Path) -> None:
    server.raw = b"<!DOCTYPE html><title>Please log in</title>"
    with pytest.raises(DownloadFailed, match="captive portal"):
        Pulls(server, folder)()
    with pytest.raises(ModelRefused, match="not a GGUF"):
        Puller(folder, Hub({"HF_ENDPOINT": server.url})).pull(f"{server.url}/{NAME}")
    assert left_over(folder) == []


@pytest.mark.parametrize("what", ["~nobody-of-this-name/x.gguf", "x" * 300 + ".gguf", "x" * 5000, "a/b\0.gguf"])
def test_impossible_path_is_reported(pulls: Pulls, what: str) -> None:
    with pytest.raises(ModelMissing, match="nothing to pull"):
        pulls(what)


@pytest.mark.skipif(not pathlib.Path("/proc/self/mem").exists(), reason="only Linux has a file that is there and cannot be read")
def test_file_that_cannot_be_read_is_reported(pulls: Pulls, tmp_path: pathlib.Path) -> None:
    (tmp_path / "x.gguf").symlink_to("/proc/self/mem")  # it exists, but every read fails
    with pytest.raises(ModelMissing, match=r"Cannot read .*x\.gguf"):
        pulls(str(tmp_path / "x.gguf"))


def test_copy_that_is_another_file_does_not_get_the_name(folder: pathlib.Path, tmp_path: pathlib.Path) -> None:
    (tmp_path / NAME).write_bytes(MODEL)
    with pytest.raises(ModelRefused, match="changed while it was copied"):
        copy(tmp_path / NAME, folder / NAME, "0" * 64)
    assert left_over(folder) == []


def test_file_with_the_name_of_another_model_is_refused(
    server: LoopbackHub, pulls: Pulls, folder: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    """`--model foggen` and `--model demo` would mean the other model."""
    for name in ("foggen.gguf", "demo.gguf"):
        (tmp_path / name).write_bytes(MODEL)
        with pytest.raises(ModelRefused, match="always means that model"):
            pulls(str(tmp_path / name))
    server.publish("stranger/x", {"foggen.gguf": MODEL})
    with pytest.raises(ModelRefused, match="always means that model"):
        pulls("stranger/x")
    assert left_over(folder) == []
    server.publish("issai/foggen", {"foggen.gguf": MODEL})
    assert pulls("foggen").path == folder / "foggen.gguf" == catalog.resolve("foggen", folder)


def test_file_here_is_copied_and_known_by_its_name(pulls: Pulls, folder: pathlib.Path, tmp_path: pathlib.Path) -> None:
    (tmp_path / NAME).write_bytes(MODEL)
    installed = pulls(str(tmp_path / NAME))
    assert installed.path == folder / NAME and installed.alias == "foggen" and catalog.resolve("foggen", folder) == folder / NAME
    assert not pulls(str(tmp_path / NAME)).is_new
    (tmp_path / NAME).write_bytes(MODEL + b"2")
    with pytest.raises(ModelRefused, match="--upgrade"):
        pulls(str(tmp_path / NAME))
    assert pulls(str(tmp_path / NAME), upgrade=True).sha256 != installed.sha256


# --- the record


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.EOPNOTSUPP])
def test_pull_of_a_file_is_whole_without_locks(code: int, pulls: Pulls, folder: pathlib.Path, tmp_path: pathlib.Path) -> None:
    def no_locks(file: object) -> None:
        raise OSError(code, os.strerror(code))

    (tmp_path / NAME).write_bytes(MODEL)
    assert pulls(str(tmp_path / NAME), take_lock=no_locks).is_new
    assert not pulls(str(tmp_path / NAME), take_lock=no_locks).is_new
    assert [record.file for record in pulled.load(folder)] == [NAME]


@pytest.mark.parametrize("what", ["file", "hub", "address"])
def test_record_that_cannot_be_written_leaves_no_file_and_the_next_pull_works(
    what: str, server: LoopbackHub, pulls: Pulls, folder: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    """Otherwise the next pull would say that the file came from somewhere else."""

    def broken(file: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    (tmp_path / NAME).write_bytes(MODEL)
    target = {"file": str(tmp_path / NAME), "hub": "a/b", "address": address(server)}[what]
    with pytest.raises(StorageError):
        pulls(target, take_lock=broken)
    assert not (folder / NAME).exists()
    assert pulls(target).is_new and not pulls(target).is_new


@pytest.mark.parametrize("what", ["file", "hub"])
def test_same_file_without_a_record_is_taken_over(
    what: str, server: LoopbackHub, pulls: Pulls, folder: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    (tmp_path / NAME).write_bytes(MODEL)
    folder.mkdir()
    (folder / NAME).write_bytes(MODEL)
    target = str(tmp_path / NAME) if what == "file" else "a/b"
    assert pulls(target).path == folder / NAME and not pulls(target).is_new and server.large.requests == []
    pulled.remove(folder, NAME)
    (folder / NAME).write_bytes(MODEL + b"2")
    with pytest.raises(ModelRefused, match="--upgrade"):
        pulls(target)

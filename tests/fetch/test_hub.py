"""What the Hub says: its refusals, the token, and answers that must be checked."""

import json
import pathlib

import httpx2
import pytest

from edge_agent.core.errors import DownloadFailed, ModelError, ModelMissing
from edge_agent.fetch.connection import NetworkSettings
from edge_agent.fetch.download import Downloader
from edge_agent.fetch.hub import MAX_FILES, Hub, is_safe, parse
from tests.support.command_line import run
from tests.support.hub_server import LoopbackHub
from tests.support.pulls import MODEL, NAME, Pulls, left_over


def test_token_reaches_the_hub_and_no_other_host(server: LoopbackHub, folder: pathlib.Path) -> None:
    server.tokens.add("hf_canary")
    server.publish("a/b", {NAME: MODEL}, gated=True)
    pulls = Pulls(server, folder, HF_TOKEN="hf_canary")
    assert pulls().path.read_bytes() == MODEL
    assert {request.headers["Authorization"] for request in server.requests} == {"Bearer hf_canary"}
    assert all("Authorization" not in request.headers for request in server.large.requests)
    assert all(b"hf_canary" not in path.read_bytes() for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("kind", ["gated", "private"])
def test_repository_that_the_token_may_read_is_pulled(server: LoopbackHub, folder: pathlib.Path, kind: str) -> None:
    server.tokens.add("hf_canary")
    server.publish("a/b", {NAME: MODEL}, **{kind: True})
    assert Pulls(server, folder, HF_TOKEN="hf_canary")().path.read_bytes() == MODEL


def test_account_that_has_not_accepted_the_licence_is_reported(folder: pathlib.Path) -> None:
    refusal = httpx2.Response(403, headers={"X-Error-Code": "GatedRepo", "X-Error-Message": "Access to a/b is restricted."})
    with Hub({"HF_TOKEN": "hf_x"}, Downloader(NetworkSettings({}, httpx2.MockTransport(lambda request: refusal)))) as hub:
        with pytest.raises(ModelError, match="account of your token has not accepted the licence of 'a/b'"):
            hub.repo("a/b")


@pytest.mark.parametrize(
    ("kind", "token", "words"),
    [
        ({"gated": True}, None, "people who accept its licence: sign in"),
        ({"private": True}, None, "set HF_TOKEN if it is private"),
        ({}, "hf_wrong", "does not know your token"),
    ],
)
def test_refusal_says_what_to_do(server: LoopbackHub, folder: pathlib.Path, kind: dict, token: str | None, words: str) -> None:
    server.publish("a/b", {NAME: MODEL}, **kind)
    with pytest.raises(ModelError, match=words) as caught:
        Pulls(server, folder, **({"HF_TOKEN": token} if token else {}))()
    assert "\n" not in str(caught.value) and "hf_wrong" not in str(caught.value) and caught.value.exit_code == 66


def test_token_of_a_login_is_used_unless_it_is_forbidden(server: LoopbackHub, home: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """`hf auth login` writes this file."""
    server.tokens.add("hf_canary")
    server.publish("a/b", {NAME: MODEL}, gated=True)
    (tmp_path / "token").write_text("hf_canary\n")
    environment = {"HF_ENDPOINT": server.url, "HF_TOKEN_PATH": str(tmp_path / "token"), "HF_STORED_TOKENS_PATH": str(tmp_path / "all")}
    done = run("pull", "a/b", **environment)
    assert done.returncode == 66 and "GGUF version" in done.stderr  # it was fetched, but is not a model
    assert {request.headers["Authorization"] for request in server.requests} == {"Bearer hf_canary"}
    assert len(server.requests) == 2  # the list and the file: the library makes no other requests
    done = run("pull", "a/b", HF_HUB_DISABLE_IMPLICIT_TOKEN="1", **environment)
    assert done.returncode == 66 and "accept its licence" in done.stderr
    assert "Authorization" not in server.requests[-1].headers
    (tmp_path / "token").write_text("hf_\u043a")
    done = run("pull", "a/b", **environment)
    assert done.returncode == 78 and "token" in done.stderr and "Traceback" not in done.stderr


def test_unknown_revision_is_reported_with_the_page(pulls: Pulls) -> None:
    with pytest.raises(ModelMissing, match=r"'a/b' has no revision 'v2' on the Hub; check it at http.*/a/b\.$"):
        pulls("a/b@v2")


def test_name_that_the_hub_cannot_have_is_reported_without_a_request(server: LoopbackHub, pulls: Pulls) -> None:
    for name in ("a--b/c", "a/b.git", "a/b-"):
        with pytest.raises(ModelMissing, match="cannot be the name"):
            pulls(name)
    assert server.requests == []


# --- replies of the Hub are not trusted


@pytest.mark.parametrize("body", [b"[]", b'"no"', b"{", b"\xff", b"<html>"])
@pytest.mark.parametrize("status", [401, 403, 404, 418])
def test_refusal_with_an_odd_body_is_a_sentence(pulls: Pulls, body: bytes, status: int) -> None:
    transport = httpx2.MockTransport(lambda request: httpx2.Response(status, content=body))
    with Hub({}, Downloader(NetworkSettings({}, transport), lambda seconds: None)) as hub:
        with pytest.raises((ModelError, DownloadFailed)) as caught:
            hub.repo("a/b")
    assert "\n" not in str(caught.value)


def test_list_of_too_many_files_is_refused(server: LoopbackHub) -> None:
    files = [{"rfilename": f"{n}"} for n in range(MAX_FILES + 1)]
    server.raw = json.dumps({"id": "a/b", "sha": "0" * 40, "siblings": files}).encode()
    with Hub({"HF_ENDPOINT": server.url}, Downloader(NetworkSettings({}))) as hub, pytest.raises(DownloadFailed, match="makes no sense"):
        hub.repo("a/b")


def test_repository_that_was_renamed_is_found(server: LoopbackHub) -> None:
    """The Hub redirects from the old name; the token is sent again to the same host."""
    seen = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        seen.append((request.url.path, request.headers.get("Authorization")))
        if "old" in request.url.path:
            return httpx2.Response(307, headers={"Location": "/api/models/a/new/revision/main?blobs=True"})
        return httpx2.Response(200, json={"id": "a/new", "sha": "0" * 40, "siblings": []})

    with Hub({"HF_TOKEN": "hf_x"}, Downloader(NetworkSettings({}, httpx2.MockTransport(answer)))) as hub:
        assert hub.repo("a/old").revision == "0" * 40
    assert [authorization for _, authorization in seen] == ["Bearer hf_x", "Bearer hf_x"]


def test_files_of_a_dataset_are_fetched(server: LoopbackHub, folder: pathlib.Path) -> None:
    commit = server.publish("datasets/a/q", {"data/test 1.jsonl": b"{}", "x.bin": b"1" * 1000})
    with Hub({"HF_ENDPOINT": server.url}, Downloader(NetworkSettings({}))) as hub:
        repo = hub.repo("a/q", kind="datasets")
        for file in repo.files:
            hub.fetch(repo, file, folder / file.path)
    assert (
        repo.revision == commit and (folder / "data" / "test 1.jsonl").read_bytes() == b"{}" and (folder / "x.bin").stat().st_size == 1000
    )


def test_redirect_to_another_host_gets_no_token(server: LoopbackHub) -> None:
    seen = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        seen.append((request.url.host, request.headers.get("Authorization")))
        if request.url.host == "huggingface.co":
            return httpx2.Response(307, headers={"Location": "https://elsewhere.example/list"})
        return httpx2.Response(200, json={"id": "a/b", "sha": "0" * 40, "siblings": []})

    with Hub({"HF_TOKEN": "hf_x"}, Downloader(NetworkSettings({}, httpx2.MockTransport(answer)))) as hub:
        hub.repo("a/b")
    assert seen == [("huggingface.co", "Bearer hf_x"), ("elsewhere.example", None)]


@pytest.mark.parametrize(
    "path", ["../x.gguf", "/etc/x.gguf", "a\\..\\x.gguf", "a/../../x.gguf", "a//x.gguf", "x\n.gguf", "", "C:x.gguf", "x" * 501]
)
def test_path_that_leaves_the_folder_is_refused(server: LoopbackHub, pulls: Pulls, folder: pathlib.Path, path: str) -> None:
    assert not is_safe(path)
    server.lies[NAME] = {"rfilename": path}
    with pytest.raises(DownloadFailed, match="not a plain path"):
        pulls()
    assert left_over(folder) == []


NO_LISTS = [
    b"", b"[]", b"{}", b'{"sha": "x", "siblings": []}', b'{"sha": 1}', b"[" * 100_000,
    json.dumps({"sha": "a" * 40, "siblings": {}}).encode(), json.dumps({"sha": "a" * 40, "siblings": [1]}).encode(),
]  # fmt: skip


@pytest.mark.parametrize("answer", NO_LISTS, ids=len)
def test_answer_that_is_not_a_list_of_files_is_refused(server: LoopbackHub, pulls: Pulls, answer: bytes) -> None:
    server.raw = answer
    with pytest.raises(DownloadFailed):
        pulls()


def test_names_of_repositories() -> None:
    assert parse("issai/foggen") == ("issai/foggen", None) and parse("a/b@main") == ("a/b", "main")
    for text in ("foggen", "a/b/c", "../b", "a/..", "a/b@", "a b/c", "/b", "a/b@x/y", ".a/b"):
        assert parse(text) is None

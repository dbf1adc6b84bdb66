"""How requests leave: through a real proxy on loopback, with our own certificates, and with only our name in them."""

import pathlib
import shutil
import ssl
import subprocess
from collections.abc import Iterator

import httpx2
import pytest

from edge_agent import __version__
from edge_agent.core.errors import BadSetting, DownloadFailed
from edge_agent.fetch.connection import NetworkSettings
from edge_agent.fetch.download import Downloader
from edge_agent.fetch.hub import Hub
from tests.support.command_line import run
from tests.support.forward_proxy import ForwardProxy
from tests.support.hub_server import LoopbackHub
from tests.support.paths import DEMO
from tests.support.pulls import MODEL, NAME, Pulls


@pytest.fixture
def proxy() -> Iterator[ForwardProxy]:
    made = ForwardProxy()
    yield made
    made.stop()


def host(url: str) -> str:
    return url.removeprefix("http://")


def test_everything_goes_through_the_proxy(server: LoopbackHub, proxy: ForwardProxy, folder: pathlib.Path) -> None:
    server.publish("a/b", {NAME: MODEL})
    server.large.drops = [400_000]
    assert Pulls(server, folder, HTTP_PROXY=proxy.url)().path.read_bytes() == MODEL
    assert set(proxy.targets) == {host(server.url), host(server.large.url)}
    assert len(proxy.targets) == len(server.requests) + len(server.large.requests) and server.large.sent == len(MODEL)


@pytest.mark.parametrize(("no_proxy", "is_direct"), [("127.0.0.1", True), ("localhost, 127.0.0.0/8", True), ("*", True), ("hf.co", False)])
def test_hosts_in_no_proxy_are_asked_directly(
    server: LoopbackHub, proxy: ForwardProxy, folder: pathlib.Path, no_proxy: str, is_direct: bool
) -> None:
    server.publish("a/b", {NAME: MODEL})
    assert Pulls(server, folder, all_proxy=proxy.url, no_proxy=no_proxy)().is_new
    assert (proxy.targets == []) is is_direct


@pytest.mark.parametrize(
    ("entry", "direct", "proxied"),
    [
        ("example.com", ["http://example.com/", "http://a.example.com/"], ["http://notexample.com/"]),
        (".example.com", ["http://a.example.com/"], ["http://example.org/"]),
        ("::1", ["http://[::1]:80/"], ["http://[::2]/"]),
        ("10.0.0.0/8", ["http://10.1.2.3/"], ["http://11.1.2.3/"]),
        ("example.com:8080", ["http://example.com:8080/"], ["http://example.com/"]),
    ],
)
def test_entries_of_no_proxy(entry: str, direct: list[str], proxied: list[str]) -> None:
    with NetworkSettings({"HTTP_PROXY": "http://p:1", "NO_PROXY": entry}).client() as client:
        chosen = {url: client._transport_for_url(httpx2.URL(url)) is client._transport for url in direct + proxied}
    assert chosen == dict.fromkeys(direct, True) | dict.fromkeys(proxied, False)


WRONG = [
    ({"ALL_PROXY": "socks5://127.0.0.1:1080"}, "ALL_PROXY is a proxy of the kind 'socks5'"),
    ({"HTTPS_PROXY": "http://user:secret@[::1"}, "HTTPS_PROXY is a proxy"),
    ({"HTTP_PROXY": "http://"}, "HTTP_PROXY is a proxy"),
    ({"http_proxy": "http://h:99999"}, "HTTP_PROXY is a proxy"),
    ({"NO_PROXY": "localhost,[fe80::]/10"}, "NO_PROXY has '\\[fe80::\\]/10'"),
    ({"NO_PROXY": "[::1"}, "NO_PROXY has '\\[::1', which is not a host"),
    ({"SSL_CERT_FILE": "/nowhere/ca.pem"}, "SSL_CERT_FILE is '/nowhere/ca.pem'"),
    ({"ALL_PROXY": "socks://127.0.0.1:1080/"}, "ALL_PROXY is a proxy of the kind 'socks'"),
    ({"SSL_CERT_FILE": "/dev/null"}, "SSL_CERT_FILE is '/dev/null', which is not a file"),
    ({"SSL_CERT_FILE": __file__}, "SSL_CERT_FILE '.*' has no readable certificates"),
    ({"SSL_CERT_DIR": "/nowhere"}, "SSL_CERT_DIR is '/nowhere'"),
]


@pytest.mark.parametrize(("environment", "words"), WRONG)
def test_wrong_values_are_reported_in_a_sentence(environment: dict[str, str], words: str) -> None:
    with pytest.raises(BadSetting, match=words) as caught:
        NetworkSettings(environment).client()
    assert "secret" not in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(("environment", "words"), WRONG[:2] + WRONG[5:8])
def test_wrong_values_end_the_command_in_a_sentence(server: LoopbackHub, environment: dict[str, str], words: str) -> None:
    done = run("pull", "a/b", HF_ENDPOINT=server.url, **environment)
    assert done.returncode == 78 and len(done.stderr.strip().splitlines()) == 1 and "Traceback" not in done.stderr, done.stderr


@pytest.mark.parametrize("environment", [environment for environment, _ in WRONG])
def test_local_file_is_pulled_whatever_the_environment_says(environment: dict[str, str], tmp_path: pathlib.Path) -> None:
    """It needs no network."""
    mine = shutil.copy(DEMO, tmp_path / "mine.gguf")
    done = run("pull", str(mine), **environment)
    assert done.returncode == 0 and "mine.gguf" in done.stdout and "edge-agent:" not in done.stderr, done.stderr


def test_all_proxy_is_ignored_if_both_schemes_have_a_proxy() -> None:
    """Desktops set ALL_PROXY to a SOCKS proxy in addition to the proxies of the two schemes."""
    NetworkSettings({"HTTP_PROXY": "p:3128", "HTTPS_PROXY": "http://p:3128", "ALL_PROXY": "socks5://p:1080"}).client().close()


def test_unreachable_proxy_is_reported(server: LoopbackHub, folder: pathlib.Path) -> None:
    server.publish("a/b", {NAME: MODEL})
    with pytest.raises(DownloadFailed, match="check the network, and the proxy"):
        Pulls(server, folder, HTTP_PROXY="http://127.0.0.1:9")()


@pytest.mark.skipif(not shutil.which("openssl"), reason="openssl makes the certificate")
def test_own_certificate_and_a_tunnel_through_the_proxy(proxy: ForwardProxy, tmp_path: pathlib.Path) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "ca.pem"
    made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=localhost", "-addext"]
    made += ["subjectAltName=DNS:localhost", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(made, check=True, capture_output=True)
    server = LoopbackHub()
    try:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(certificate, key)
        server.server.socket = tls.wrap_socket(server.server.socket, server_side=True)
        server.publish("a/b", {"config.json": b"{}"})
        endpoint = server.url.replace("http://127.0.0.1", "https://localhost")
        environment = {"HF_ENDPOINT": endpoint, "SSL_CERT_FILE": str(certificate), "HTTPS_PROXY": proxy.url}
        with Hub(environment) as hub:
            repo = hub.repo("a/b")
            hub.fetch(repo, repo.files[0], tmp_path / "config.json")
        assert (tmp_path / "config.json").read_bytes() == b"{}" and set(proxy.targets) == {host(endpoint.removeprefix("https://"))}
        stranger = {"HF_ENDPOINT": endpoint}
        with Hub(stranger, Downloader(NetworkSettings(stranger), lambda seconds: None)) as hub:
            with pytest.raises(DownloadFailed, match=r"certificate verify failed.*check the network"):
                hub.repo("a/b")
    finally:
        server.stop()


def test_requests_name_edge_agent_and_nothing_of_the_machine(server: LoopbackHub, folder: pathlib.Path) -> None:
    server.publish("a/b", {NAME: MODEL})
    Pulls(server, folder)()
    sent = [*server.requests, *server.large.requests]
    assert {request.headers["User-Agent"] for request in sent} == {f"edge-agent/{__version__}"}
    assert {name.lower() for request in sent for name in request.headers} <= {
        "host", "user-agent", "accept", "accept-encoding", "connection", "range", "if-range"
    }  # fmt: skip


def test_list_that_does_not_end_is_cut_off(server: LoopbackHub) -> None:
    server.raw = b"x" * 2000
    with NetworkSettings({}).client(1000) as client, pytest.raises(DownloadFailed, match="over 1000 bytes"):
        client.get(server.url)


def test_compressed_list_is_refused() -> None:
    """A few kilobytes may become gigabytes when they are decompressed."""
    transport = httpx2.MockTransport(lambda request: httpx2.Response(200, headers={"Content-Encoding": "gzip"}))
    with NetworkSettings({}, transport).client(1000) as client, pytest.raises(DownloadFailed, match="compressed"):
        client.get("https://a.example/")

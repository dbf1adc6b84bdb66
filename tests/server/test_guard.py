"""Who is let in: by which name of ours, from which page, with which method. Real sockets, a real server."""

import pathlib
import time
from collections.abc import Iterator

import httpx
import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from edge_agent.server.door.connection import ARRIVAL_S
from tests.support.raw_client import ask, request
from tests.support.serving import Serving, serving, token_file

JSON = ("Content-Type", "application/json")
ASKED = b'{"question": "What is 12 + 7?", "options": ["18", "19", "24"]}'
ASK = "/edge/ask"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    home = tmp_path_factory.mktemp("serve")
    (home / "config.toml").write_text('serve_hosts = ["edge.example", "Kiosk.Example:9000", "fd00::7"]\n')
    with serving(home) as running:
        yield running
        assert "Traceback" not in running.said() and not running.complaints()


STRANGE_HOSTS = [
    "evil.example",
    "evil.example:{port}",
    "127.0.0.1.evil.example:{port}",
    "localhost.evil.example:{port}",
    "rebind.127.0.0.1.nip.io:{port}",
    "7f000001.rbndr.us:{port}",
    "127.0.0.1",
    "127.0.0.1:",
    "127.0.0.1:80",
    "127.0.0.1:0{port}",
    "127.0.0.1:{port}:{port}",
    "127.0.0.1:{port}, evil.example",
    "127.0.0.1:{port}@evil.example",
    "evil.example@127.0.0.1:{port}",
    "127.0.0.1:{port}/",
    "http://127.0.0.1:{port}",
    "localhost.:{port}",
    "localhost..:{port}",
    "127.1:{port}",
    "127.0.0.2:{port}",
    "2130706433:{port}",
    "0177.0.0.1:{port}",
    "0x7f.0.0.1:{port}",
    "0x7f000001:{port}",
    "0.0.0.0:{port}",
    "0:{port}",
    "[::]:{port}",
    "[::ffff:127.0.0.1]:{port}",
    "[0:0:0:0:0:0:0:1]:{port}",
    "[::1]",
    "::1:{port}",
    "[::1]evil.example:{port}",
    "[::1%25lo]:{port}",
    "",
    " ",
    "_",
    "*",
    "127.0.0.1:{port}\t.evil.example",
    "127。0。0。1:{port}",
    "edge.example.evil.example",
    "notedge.example",
    "edge.example:http",
    "edge.example:１",
    "kiosk.example:9001",
    "fd00::7",
]


@pytest.mark.parametrize("host", STRANGE_HOSTS)
def test_strange_host_is_refused(server: Serving, host: str) -> None:
    wire = host.format(port=server.port).encode("utf-8").decode("latin-1")
    reply = request(server.port, "/health", headers=[("Host", wire)])
    assert reply.status == 403 and reply.json()["error"]["code"] == "host_not_allowed"


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1:{port}",
        "localhost:{port}",
        "LOCALHOST:{port}",
        "[::1]:{port}",
        "edge.example",
        "EDGE.example:8443",
        "kiosk.example:9000",
        "[fd00::7]:1234",
    ],
)
def test_our_names_are_served(server: Serving, host: str) -> None:
    assert request(server.port, "/health", headers=[("Host", host.format(port=server.port))]).status == 200


def test_missing_or_doubled_host_is_refused(server: Serving) -> None:
    ours = f"Host: 127.0.0.1:{server.port}\r\n".encode()
    assert ask(server.port, b"GET /health HTTP/1.0\r\n\r\n").status == 403
    assert ask(server.port, b"GET /health HTTP/1.0\r\n" + ours + ours + b"\r\n").status in (400, 403)
    for lines in (b"", ours + b"Host: evil.example\r\n", ours + ours, b"Host : 127.0.0.1\r\n"):
        reply = ask(server.port, b"GET /health HTTP/1.1\r\n" + lines + b"Connection: close\r\n\r\n")
        assert reply.status == 400 and reply.json()["error"]["code"] == "not_http"


@pytest.mark.parametrize(
    ("target", "status"),
    [
        ("http://evil.example/health", 403),
        ("https://evil.example/health", 403),
        ("HTTP://evil.example/health", 403),
        ("http://evil.example@127.0.0.1/health", 403),
        ("http://127.0.0.1:{port}@evil.example/health", 403),
        ("http:///health", 403),
        ("http://127.0.0.1:{port}/health", 200),
        ("http://127.0.0.1:{port}/edge/queue", 401),
        ("http://127.0.0.1:{port}", 200),
        ("ftp://127.0.0.1:{port}/health", 404),
        ("//evil.example/health", 404),
        ("evil.example:80", 404),
        ("*", 404),
    ],
)
def test_whole_url_as_target_counts_like_a_host(server: Serving, target: str, status: int) -> None:
    assert request(server.port, target.format(port=server.port)).status == status


ORIGINS = [
    "null",
    "http://evil.example",
    "https://127.0.0.1:{port}",
    "http://127.0.0.1",
    "http://127.0.0.1:1",
    "http://localhost:{port}",
    "http://127.0.0.1:{port}.evil.example",
    "http://evil.example@127.0.0.1:{port}",
    "http://127.0.0.1:{port}/",
    "http://127.0.0.1:{port} http://evil.example",
    "file://",
    "chrome-extension://abcdefgh",
    "127.0.0.1:{port}",
    "",
    "*",
]


@pytest.mark.parametrize("origin", ORIGINS)
def test_page_of_another_site_may_not_call(server: Serving, origin: str) -> None:
    reply = request(server.port, ASK, "POST", [("Origin", origin.format(port=server.port)), JSON], ASKED)
    assert reply.status == 403 and reply.json()["error"]["code"] == "origin_not_allowed"


@pytest.mark.parametrize(
    "headers",
    [
        [("Sec-Fetch-Site", "cross-site")],
        [("Sec-Fetch-Site", "same-site")],
        [("Sec-Fetch-Site", "")],
        [("Sec-Fetch-Site", "none"), ("Sec-Fetch-Site", "cross-site")],
        [("Origin", "http://127.0.0.1:{port}"), ("Sec-Fetch-Site", "cross-site")],
        [("Origin", "http://127.0.0.1:{port}"), ("Origin", "http://127.0.0.1:{port}")],
        [("Origin", "http://127.0.0.1:{port}"), ("Origin", "null")],
    ],
)
def test_request_that_a_browser_marks_as_foreign_is_refused(server: Serving, headers: list[tuple[str, str]]) -> None:
    sent = [(name, value.format(port=server.port)) for name, value in headers]
    assert request(server.port, ASK, "POST", [*sent, JSON], ASKED).status == 403
    assert request(server.port, "/health", headers=sent).status == 403


@pytest.mark.parametrize(
    "headers",
    [
        [("Origin", "http://127.0.0.1:{port}"), ("Sec-Fetch-Site", "same-origin")],
        [("Sec-Fetch-Site", "none")],
        [("Host", "edge.example"), ("Origin", "https://edge.example")],
        [("Host", "edge.example:8443"), ("Origin", "https://edge.example:8443")],
    ],
)
def test_our_own_page_may_call(server: Serving, headers: list[tuple[str, str]]) -> None:
    sent = [(name, value.format(port=server.port)) for name, value in headers]
    assert request(server.port, ASK, "POST", [*sent, JSON], ASKED).status == 200


@pytest.mark.parametrize(
    "kinds",
    [
        ["application/x-www-form-urlencoded"],
        ["multipart/form-data; boundary=x"],
        ["text/plain"],
        ["text/plain; charset=application/json"],
        ["text/plain;application/json"],
        ["application/json, text/plain"],
        ["application/jsonp"],
        ["application/problem+json"],
        [""],
        [],
        ["application/json", "text/plain"],
        ["text/plain", "application/json"],
    ],
)
def test_only_json_is_taken(server: Serving, kinds: list[str]) -> None:
    reply = request(server.port, ASK, "POST", [("Content-Type", kind) for kind in kinds], ASKED)
    assert reply.status == 415


@pytest.mark.parametrize("kind", ["application/json", "Application/JSON; charset=utf-8", "application/json ;charset=UTF-8"])
def test_json_is_json_however_it_is_written(server: Serving, kind: str) -> None:
    assert request(server.port, ASK, "POST", [("Content-Type", kind)], ASKED).status == 200


@pytest.mark.parametrize("origin", ["http://evil.example", "http://127.0.0.1:{port}", None])
def test_preflight_allows_nothing(server: Serving, origin: str | None) -> None:
    headers = [("Access-Control-Request-Method", "POST"), ("Access-Control-Request-Private-Network", "true")]
    if origin is not None:
        headers.append(("Origin", origin.format(port=server.port)))
    reply = request(server.port, ASK, "OPTIONS", headers)
    assert reply.status == (403 if origin == "http://evil.example" else 405)
    assert not [name for name in reply.headers if name.startswith("access-control")]


@pytest.mark.parametrize("path", ["/health", ASK, "/nothing", "/edge/queue", "/v1/systemone"])
def test_every_reply_has_the_headers_that_keep_browsers_honest(server: Serving, path: str) -> None:
    reply = request(server.port, path)
    assert reply.headers["content-type"].startswith("application/json")
    assert reply.headers["x-content-type-options"] == "nosniff" and reply.headers["cache-control"] == "no-store"
    assert "default-src 'none'" in reply.headers["content-security-policy"] and reply.headers["x-frame-options"] == "DENY"
    assert "date" in reply.headers and "server" not in reply.headers
    assert not [name for name in reply.headers if name.startswith("access-control")]


def test_head_is_a_get_without_its_body(server: Serving) -> None:
    reply = request(server.port, "/health", "HEAD")
    assert (reply.status, reply.body) == (200, b"") and int(reply.headers["content-length"]) > 0
    assert request(server.port, ASK, "HEAD").status == 405


@pytest.mark.parametrize(
    ("method", "path", "status", "allow"),
    [
        ("GET", ASK, 405, "POST"),
        ("PUT", ASK, 405, "POST"),
        ("TRACE", ASK, 405, "POST"),
        ("CONNECT", ASK, 405, "POST"),
        ("DELETE", "/health", 405, "GET, HEAD"),
        ("POST", "/health/", 404, None),
        ("POST", ASK + "/", 404, None),
        ("GET", "/", 404, None),
    ],
)
def test_wrong_method_and_path(server: Serving, method: str, path: str, status: int, allow: str | None) -> None:
    """No redirect: one would turn a POST into a GET in many clients."""
    reply = request(server.port, path, method)
    if path != "/":  # may be the page of a kiosk one day
        assert (reply.status, reply.headers.get("allow")) == (status, allow)
    assert reply.status < 300 or (reply.status >= 400 and "error" in reply.json())


def test_get_never_writes(server: Serving) -> None:
    files = sorted(server.home.glob("edge-agent.db*"))
    before = [path.read_bytes() for path in files]
    with server.client() as client:
        paths = [path for path in client.get("/openapi.json").json()["paths"] if "{" not in path and path != "/edge/events"]
        for path in paths:
            client.get(path)
            client.get(path, params={"question": "What is 1 + 1?", "options": "2", "retry": "1", "drain": "1"})
    assert [path.read_bytes() for path in files] == before


def upgrade(port: int, path: str, *headers: tuple[str, str], body: bytes = b"") -> int:
    """The status of a WebSocket's first request. `close` is for what is answered as a plain request, and would be kept alive."""
    key = [("Upgrade", "websocket"), ("Sec-WebSocket-Version", "13"), ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")]
    lines = [*headers] if any(name == "Host" for name, _ in headers) else [("Host", f"127.0.0.1:{port}"), *headers]
    text = f"GET {path} HTTP/1.1\r\nConnection: Upgrade, close\r\n" + "".join(f"{name}: {value}\r\n" for name, value in [*lines, *key])
    return ask(port, text.encode() + b"\r\n" + body).status


@pytest.mark.parametrize("path", ["/nothing", "/edge/events", "/v1/systemone", "/edge/draft/5"])
def test_web_socket_that_is_not_there_is_a_404_in_json(server: Serving, path: str) -> None:
    with pytest.raises(InvalidStatus) as refused, connect(f"ws://127.0.0.1:{server.port}{path}", proxy=None):
        pass
    response = refused.value.response
    assert response.status_code == 404 and response.headers["content-type"] == "application/json"
    assert "There is no WebSocket at" in bytes(response.body or b"").decode()


def test_path_that_is_not_there_says_where_the_routes_are(server: Serving) -> None:
    for path in ("/docs", "/v1/embeddings", "/v1/models/", "/kiosk"):
        reply = request(server.port, path)
        assert reply.status == 404 and "/openapi.json lists the routes" in reply.json()["error"]["message"]
    message = request(server.port, "/v1/models", "PUT").json()["error"]["message"]
    assert message == "PUT is not possible at /v1/models; use GET, HEAD."


@pytest.mark.parametrize("path", ["/edge/draft", "/nothing", "/health"])
def test_web_socket_from_another_site_is_refused(server: Serving, path: str) -> None:
    assert upgrade(server.port, path, ("Origin", "http://evil.example")) == 403
    assert upgrade(server.port, path, ("Origin", "null")) == 403
    assert upgrade(server.port, path, ("Host", "evil.example")) == 403
    assert upgrade(server.port, path, ("Origin", f"http://127.0.0.1:{server.port}"), ("Sec-Fetch-Site", "cross-site")) == 403


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ([("X", "y")] * 200, b""),
        ([("X", "y" * 9000)], b""),
        ([("Content-Length", "5")], b"hello"),
        ([("Transfer-Encoding", "chunked")], b"0\r\n\r\n"),
        ([("Sec-WebSocket-Key", "again")], b""),
        ([("X", "\x01\xff")], b""),
    ],
)
def test_strange_upgrade_is_answered_at_once(server: Serving, headers: list[tuple[str, str]], body: bytes) -> None:
    began = time.monotonic()
    assert 400 <= upgrade(server.port, "/nothing", *headers, body=body) < 500 and time.monotonic() - began < ARRIVAL_S
    with server.client() as client:
        assert client.get("/health", headers={"Connection": "Upgrade, HTTP2-Settings", "Upgrade": "h2c"}).status_code == 200


def test_address_of_the_connection_is_a_name_of_ours(tmp_path: pathlib.Path) -> None:
    """Who listens everywhere is called by an address that no setting names; 0.0.0.0 itself, which browsers take for loopback, is none."""
    token = token_file(tmp_path / "token", "0123456789abcdef0123")
    with serving(tmp_path / "home", "--host", "0.0.0.0", "--token-file", token) as server:
        for host, status in (("127.0.0.1", 200), ("127.0.0.2", 403), ("0.0.0.0", 403), ("evil.example", 403)):
            assert request(server.port, headers=[("Host", f"{host}:{server.port}")]).status == status
        assert request(server.port, headers=[("Host", f"127.0.0.2:{server.port}")], host="127.0.0.2").status == 200
        assert httpx.post(f"http://127.0.0.1:{server.port}/edge/ask", content=ASKED, trust_env=False).status_code == 401


VISIT = [("Sec-Fetch-Site", "cross-site"), ("Sec-Fetch-Mode", "navigate"), ("Sec-Fetch-Dest", "document")]


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("/", VISIT, 200),
        ("/operator", VISIT, 200),
        ("/", [VISIT[0]], 403),
        ("/", [*VISIT[:2], ("Sec-Fetch-Dest", "iframe")], 403),
        ("/", [*VISIT, ("Origin", "null")], 403),
        ("/", [VISIT[0], *VISIT[1:], ("Sec-Fetch-Dest", "iframe")], 403),
        ("/kiosk/deck", VISIT, 403),
        ("/health", VISIT, 403),
        ("/edge/events", VISIT, 403),
    ],
)
def test_link_on_another_page_may_open_our_pages_and_nothing_else(
    server: Serving, path: str, headers: list[tuple[str, str]], status: int
) -> None:
    with server.client() as client:
        assert client.get(path, headers=headers).status_code == status

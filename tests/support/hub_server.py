"""A Hugging Face Hub on loopback: its routes, headers and redirects, and a second host for large files; it can fail on command.

Like the Hub, `/api/models/.../revision/...` lists files (large ones with an `lfs` object), and `/resolve/` sends the commit and
the hash in headers; it redirects small files to its cache route, and large ones (Git LFS) to another host with a signed
address. In tests/peers/test_hub.py the Hub's own client fetches from it.
"""

import hashlib
import json
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

LARGE = (".gguf", ".safetensors", ".bundle", ".bin")


def git_sha1(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


@dataclass
class Repository:
    """`commits` maps each commit to its files; `main` is the newest commit."""

    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    gated: bool = False
    private: bool = False

    @property
    def main(self) -> str:
        return list(self.commits)[-1]


class _Quiet(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        if not isinstance(sys.exception(), ConnectionError):  # a killed client is not an error of the server
            super().handle_error(request, client_address)


class LoopbackServer:
    """A server on loopback that records its requests."""

    def __init__(self) -> None:
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.answer(self)

            def do_HEAD(self) -> None:
                outer.answer(self)

            def do_CONNECT(self) -> None:
                outer.answer(self)

            def log_message(self, *_: object) -> None:
                pass

        self.server = _Quiet(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.requests: list[BaseHTTPRequestHandler] = []
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self.thread.start()

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        self.requests.append(request)
        self.route(request)

    def route(self, request: BaseHTTPRequestHandler) -> None:
        """Answer a request: each server below has its own rules."""
        raise NotImplementedError


class LargeFileHost(LoopbackServer):
    """The host of large files, with HTTP Range and with faults.

    `drops`: after how many bytes the next replies stop. `statuses`: HTTP statuses that the next requests get instead of the file.
    `change` alters the data that is sent. `ignores_range` always sends the whole file. `validators` are the headers that tell one
    version from another; If-Range is ignored.
    """

    def __init__(self) -> None:
        super().__init__()
        self.blobs: dict[str, bytes] = {}
        self.drops: list[int] = []
        self.before_drop: Callable[[], object] = lambda: None
        self.statuses: list[int] = []
        self.change = bytes
        self.ignores_range = False
        self.validators: Callable[[bytes], dict[str, str]] = lambda data: {"ETag": f'"{hashlib.md5(data).hexdigest()}"'}
        self.sent = 0

    def route(self, request: BaseHTTPRequestHandler) -> None:
        address = urlsplit(request.path)
        data = self.change(self.blobs[address.path.strip("/")])
        if self.statuses:
            reply(request, self.statuses.pop(0), {"Retry-After": "1"})
            return
        if "signature" not in parse_qs(address.query) or "Authorization" in request.headers:
            reply(request, 400)  # like a signed address, which refuses a second credential
            return
        status, headers, start = 200, {**self.validators(data), "Accept-Ranges": "bytes"}, 0
        wanted = request.headers.get("Range")
        if wanted and not self.ignores_range:
            start = int(wanted.removeprefix("bytes=").rstrip("-"))
            if start >= len(data):
                reply(request, 416, {"Content-Range": f"bytes */{len(data)}"})
                return
            status, headers["Content-Range"] = 206, f"bytes {start}-{len(data) - 1}/{len(data)}"
        body = data[start:]
        end = self.drops.pop(0) if self.drops and request.command == "GET" else None
        self.sent += len(body[:end]) if request.command == "GET" else 0
        reply(request, status, headers, body, end)
        if end is not None:
            request.wfile.flush()
            self.before_drop()


class LoopbackHub(LoopbackServer):
    """`repositories` by name; `tokens` may read the gated and private ones; `lies` replaces what the list says about a file,
    and `about` adds to what it says about a repository.

    `xet` maps the sha256 of a file to its Xet hash, and `storage` is where Xet keeps it: an address on loopback, or none.
    """

    def __init__(self) -> None:
        super().__init__()
        self.large = LargeFileHost()
        self.repositories: dict[str, Repository] = {}
        self.tokens: set[str] = set()
        self.lies: dict[str, dict] = {}
        self.about: dict[str, dict] = {}
        self.raw: bytes | None = None
        self.xet: dict[str, str] = {}
        self.storage = "http://127.0.0.1:9"
        self.token_host = self.url

    def stop(self) -> None:
        self.large.stop()
        super().stop()

    def publish(self, name: str, files: dict[str, bytes], **kind: bool) -> str:
        """Add a commit to a repository; returns the commit."""
        repository = self.repositories.setdefault(name, Repository(**kind))
        commit = hashlib.sha1(repr((name, len(repository.commits), sorted(files))).encode()).hexdigest()
        repository.commits[commit] = files
        for data in files.values():
            self.publish_file(data)
        return commit

    def publish_file(self, data: bytes) -> str:
        """Put a file on the host of large files; returns its sha256, which is also its name there."""
        sha256 = hashlib.sha256(data).hexdigest()
        self.large.blobs[sha256] = data
        return sha256

    def route(self, request: BaseHTTPRequestHandler) -> None:
        if self.raw is not None:
            reply(request, 200, {"Content-Type": "text/html"}, self.raw)
            return
        path = unquote(urlsplit(request.path).path).strip("/")
        api = path.startswith("api/")
        parts = path.removeprefix("api/resolve-cache/").removeprefix("api/").split("/")
        space = "datasets" if "datasets" in parts[:1] else "models"
        if parts[0] in ("models", "datasets"):
            parts = parts[1:]
        name, rest = "/".join(parts[:2]), parts[2:]
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        repository = self.repositories.get(f"datasets/{name}" if space == "datasets" else name)
        if token and token not in self.tokens:
            reply(request, 401, {"X-Error-Message": "Invalid credentials in Authorization header"})
        elif repository is None or (repository.private and not token):
            reply(request, 401 if not token else 404, {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository not found"})
        elif "xet-read-token" in path:
            reply(request, 200, {"X-Xet-Cas-Url": self.storage, "X-Xet-Access-Token": "xet", "X-Xet-Token-Expiration": "9999999999"})
        elif "resolve-cache" in path:
            self._small(request, repository, rest)
        elif api:
            self._list(request, name, repository, rest)
        else:
            self._resolve(request, f"{space}/{name}", repository, rest, bool(token))

    def _list(self, request: BaseHTTPRequestHandler, name: str, repository: Repository, rest: list[str]) -> None:
        wanted = rest[1] if rest[:1] in (["revision"], ["tree"]) else "main"
        commit = repository.main if wanted == "main" else wanted
        if commit not in repository.commits:
            reply(request, 404, {"X-Error-Code": "RevisionNotFound", "X-Error-Message": f"Invalid rev id: {commit}"})
            return
        rows, tree = [], []
        for path, data in repository.commits[commit].items():
            row, sha256 = {"rfilename": path, "size": len(data), "blobId": git_sha1(data)}, hashlib.sha256(data).hexdigest()
            leaf = {"type": "file", "oid": git_sha1(data), "size": len(data), "path": path}
            if path.endswith(LARGE):
                pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {len(data)}\n".encode()
                row |= {"blobId": git_sha1(pointer), "lfs": {"sha256": sha256, "size": len(data), "pointerSize": len(pointer)}}
                leaf |= {"oid": git_sha1(pointer), "lfs": {"oid": sha256, "size": len(data), "pointerSize": len(pointer)}}
            rows.append(row | self.lies.get(path, {}))
            tree.append(leaf)
        about = {"_id": "1", "id": name, "sha": commit, "gated": "manual" if repository.gated else False, "siblings": rows}
        about |= self.about.get(name, {})
        reply(request, 200, {"Content-Type": "application/json"}, json.dumps(tree if rest[:1] == ["tree"] else about).encode())

    def _resolve(self, request: BaseHTTPRequestHandler, name: str, repository: Repository, rest: list[str], token: bool) -> None:
        commit = repository.main if rest[1] == "main" else rest[1]
        path = "/".join(rest[2:])
        if repository.gated and not token:
            message = f"Access to {name} is restricted. You must be authenticated to access it."
            reply(request, 401, {"X-Error-Code": "GatedRepo", "X-Error-Message": message})
        elif path not in repository.commits.get(commit, {}):
            reply(request, 404, {"X-Error-Code": "EntryNotFound", "X-Error-Message": "Entry not found"})
        elif path.endswith(LARGE):
            data = repository.commits[commit][path]
            sha256 = hashlib.sha256(data).hexdigest()
            headers = {"X-Repo-Commit": commit, "X-Linked-Etag": f'"{sha256}"', "X-Linked-Size": str(len(data)), "ETag": '"pointer"'}
            if sha256 in self.xet:
                route = f"{self.token_host}/api/{name}/xet-read-token/{commit}"
                headers |= {"X-Xet-Hash": self.xet[sha256], "Link": f'<{route}>; rel="xet-auth"'}
            reply(request, 302, headers | {"Location": f"{self.large.url}/{sha256}?signature=secret&expires=1"})
        else:
            reply(request, 307, {"X-Repo-Commit": commit, "Location": f"/api/resolve-cache/{name}/{commit}/{path}"})

    def _small(self, request: BaseHTTPRequestHandler, repository: Repository, rest: list[str]) -> None:
        data = repository.commits[rest[0]]["/".join(rest[1:])]
        reply(request, 200, {"X-Repo-Commit": rest[0], "ETag": f'"{git_sha1(data)}"', "Content-Type": "text/plain"}, data)


def reply(
    request: BaseHTTPRequestHandler, status: int, headers: dict[str, str] | None = None, body: bytes = b"", end: int | None = None
) -> None:
    request.send_response(status)
    for name, value in (headers or {}).items():
        request.send_header(name, value)
    request.send_header("Content-Length", str(len(body)))
    request.end_headers()
    if request.command == "GET":
        request.wfile.write(body[:end])

"""A forward proxy on loopback, as a company has one: it fetches http addresses, and connects to https hosts. It counts."""

import http.client
import select
import socket
from http.server import BaseHTTPRequestHandler
from urllib.parse import urlsplit

from tests.support.hub_server import LoopbackServer

_HOP = ("connection", "proxy-connection", "proxy-authorization", "keep-alive", "transfer-encoding")


class ForwardProxy(LoopbackServer):
    """`targets` are the hosts and ports that it was asked for; `requests` are as they came in."""

    def __init__(self) -> None:
        super().__init__()
        self.targets: list[str] = []

    def route(self, request: BaseHTTPRequestHandler) -> None:
        if request.command == "CONNECT":
            self.targets.append(request.path)
            self._tunnel(request)
            return
        target = urlsplit(request.path)
        self.targets.append(target.netloc)
        upstream = http.client.HTTPConnection(target.hostname, target.port)
        headers = {name: value for name, value in request.headers.items() if name.lower() not in _HOP}
        upstream.request(request.command, target._replace(scheme="", netloc="").geturl(), headers=headers)
        answer = upstream.getresponse()
        request.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in _HOP:
                request.send_header(name, value)
        request.end_headers()
        while piece := answer.read(1 << 16):
            request.wfile.write(piece)
        upstream.close()

    def _tunnel(self, request: BaseHTTPRequestHandler) -> None:
        host, _, port = request.path.rpartition(":")
        with socket.create_connection((host, int(port))) as upstream:
            request.send_response(200)
            request.end_headers()
            ends = {request.connection: upstream, upstream: request.connection}
            while True:
                for ready in select.select(list(ends), [], [])[0]:
                    if not (piece := ready.recv(1 << 16)):
                        return
                    ends[ready].sendall(piece)

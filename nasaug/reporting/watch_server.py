"""Serves the watching page to this machine's browsers: the page, its data as JSON, and the pages that runs left.

It listens on the loopback address alone, and answers only requests that name this machine (`Host`), so that a page of
another site cannot read it through a name that it controls (DNS rebinding). A request names a run by its id and one of
a few pages; no path is made from a request.
"""

from __future__ import annotations

import errno
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from ..core.errors import BadInput, arg
from ..core.files import to_json
from .watch import Watched

LOOPBACK, PORT, HOSTS = "127.0.0.1", 8765, ("127.0.0.1", "localhost")
_HERE = Path(__file__).parent
_OWN = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; frame-src 'self'; img-src data:; "
_OWN += "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
# a run's page may come from anywhere: it runs no script here, and reads nothing
_OF_RUN = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; sandbox; frame-ancestors 'self'"
_STATIC = {
    "/": ("watch.html", "text/html"), "/watch.js": ("watch.js", "text/javascript"),
    "/page.css": ("page.css", "text/css"), "/watch.css": ("watch.css", "text/css"),
}  # fmt: skip


class Server(ThreadingHTTPServer):
    """The server of a folder's runs; `url` is its address. Raises BadInput if the port cannot be had."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, folder: Path, port: int | None = None):
        if not folder.is_dir():
            raise BadInput(f"{folder} is not a folder; give one that holds runs, or a run")
        if port is not None and not 0 <= port <= 65535:
            raise BadInput.of(argument="port", value=port, rule="must be 0 to 65535", remedy="give 0 for any free one")
        self.watched = Watched(folder)
        try:
            super().__init__((LOOPBACK, PORT if port is None else port), _Handler)
        except OSError as error:
            if error.errno not in (errno.EADDRINUSE, errno.EACCES):
                raise
            if port is not None:
                taken = "is in use" if error.errno == errno.EADDRINUSE else "is not for users"
                raise BadInput.of(
                    argument="port", value=port, rule=taken, remedy=f"leave {arg.port} out for a free one"
                ) from error
            super().__init__((LOOPBACK, 0), _Handler)

    @property
    def url(self) -> str:
        return f"http://{LOOPBACK}:{self.server_address[1]}/"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that has gone away is no error."""


class _Handler(BaseHTTPRequestHandler):
    server: Server
    server_version, sys_version = "nasaug", ""
    timeout = 30  # seconds for a request to arrive

    def do_GET(self) -> None:
        if self.headers.get("Host", "").rpartition(":")[0] not in HOSTS and self.headers.get("Host") not in HOSTS:
            self._refuse(HTTPStatus.FORBIDDEN)
            return
        asked = urlsplit(self.path)
        name = parse_qs(asked.query).get("run", [""])[0]
        watched = self.server.watched
        if asked.path in _STATIC:
            file, kind = _STATIC[asked.path]
            self._answer((_HERE / file).read_bytes(), kind)
        elif asked.path == "/runs.json":
            self._answer_json(watched.overview())
        elif asked.path == "/run.json" and (details := watched.details(name)) is not None:
            self._answer_json(details)
        elif asked.path.startswith("/pages/") and (page := watched.page(name, asked.path.removeprefix("/pages/"))):
            self._answer(page.read_bytes(), "text/html", _OF_RUN)
        else:
            self._refuse(HTTPStatus.NOT_FOUND)

    do_HEAD = do_GET

    def _answer_json(self, content: Any) -> None:
        self._answer(to_json(content).encode(), "application/json")

    def _refuse(self, status: HTTPStatus) -> None:
        self._answer(f"{status.phrase}\n".encode(), "text/plain", status=status)

    def _answer(self, body: bytes, kind: str, policy: str = _OWN, status: HTTPStatus = HTTPStatus.OK) -> None:
        self.send_response(status)
        for head, value in {
            "Content-Type": f"{kind}; charset=utf-8", "Content-Length": str(len(body)), "Cache-Control": "no-store",
            "Content-Security-Policy": policy, "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer",
            "Cross-Origin-Resource-Policy": "same-origin",
        }.items():  # fmt: skip
            self.send_header(head, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Requests are not logged."""

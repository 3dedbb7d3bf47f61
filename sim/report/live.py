"""A page that shows a run while it goes on: map, running distribution of the error, and what arrives on each link.

    http://127.0.0.1:PORT/TOKEN/        the page, whole: no request leaves the machine
    http://127.0.0.1:PORT/TOKEN/data    what is new since fix number `since`, as JSON; the page asks once a second

Other users of the machine reach the port, too: whoever does not know the token, which is drawn for each run, is told
nothing (403). Nothing is read from the run's streams unless a page asks.
"""

from __future__ import annotations

import contextlib
import html
import json
import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs

import numpy as np

from sim.plan.options import run_label
from sim.plan.outcome import Progress
from sim.plan.plan import Plan
from sim.report.following import Following
from sim.report.page import filled, part
from sim.report.run_data import scene

HOST = "127.0.0.1"
MOST_NEWS = 20_000
"""Most fixes in one answer, for a page that is opened late; the next answer has the next ones."""
_POLICY = (
    "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)


class LivePage:
    """The page of one run; the driver tells it of its progress, browsers ask it from other threads.

    Attributes:
        address: where the page is.
    """

    def __init__(self, plan: Plan) -> None:
        """Listen at a free port."""
        self._plan = plan
        self._token = secrets.token_urlsafe(24)
        self._lock = threading.Lock()
        self._run = Following(plan.truth, plan.stations)
        self._server = ThreadingHTTPServer((HOST, 0), _handler(self))
        self.address = f"http://{HOST}:{self._server.server_address[1]}/{self._token}/"

    def note(self, progress: Progress) -> None:
        """Take the driver's word on how far the run is; read the end of its streams before they are removed."""
        with self._lock:
            self._run.note(progress)
            if progress.stage == "write":
                self._run.read()

    def serve(self) -> None:
        """Answer until `close`."""
        self._server.serve_forever(poll_interval=0.1)

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()

    def answer(self, path: str) -> tuple[HTTPStatus, str, bytes]:
        """Return status, type and content of the answer to a request."""
        place, _, query = path.partition("?")  # anybody may ask for anything, also for what is no URL
        _, token, *rest = [*place.split("/"), ""]
        if not secrets.compare_digest(token.encode(), self._token.encode()):
            return (
                HTTPStatus.FORBIDDEN,
                "text/plain",
                b"The token is wrong: open the address that the run has printed.\n",
            )
        if rest[:-1] == [""]:
            return HTTPStatus.OK, "text/html", self.page().encode()
        since = parse_qs(query).get("since", ["0"])[0]
        if rest[:-1] == ["data"] and since.isascii() and since.isdigit() and len(since) < 20:
            return HTTPStatus.OK, "application/json", json.dumps(self.news(int(since))).encode()
        return HTTPStatus.NOT_FOUND, "text/plain", b"There is nothing here.\n"

    def page(self) -> str:
        """Return the page."""
        plan = self._plan
        name = f"{plan.scenario.name}, {run_label(plan.settings, plan.chosen.options)}"
        sites = np.array([plan.scenario.sites[bs].position for bs in plan.stations])
        seen = np.concatenate([sites[:, :2], plan.truth[:, :2]])
        (west, south), (east, north) = seen.min(0).tolist(), seen.max(0).tolist()
        data = {
            "name": name,
            "scene": scene(plan.scenario),
            "stations": list(plan.stations),
            "snapshots": plan.settings.snapshots,
            "extent": [west, east, south, north],
        }
        return filled("live.html", html.escape(f"Live: {name}"), part("pictures.js") + "\n" + part("live.js"), data)

    def news(self, since: int) -> dict[str, Any]:
        """Return the state of the run, and its fixes from number `since` on; lengths [m]."""
        with self._lock:
            run = self._run
            run.read()
            new = slice(since, since + MOST_NEWS)
            progress = run.progress
            return {
                "stage": "start" if progress is None else progress.stage,
                "done": 0 if progress is None else progress.done,
                "fixes": len(run.error_m),
                "error": [round(error, 4) for error in run.error_m[new]],
                "estimate": [[round(x, 3) for x in position] for position in run.estimate[new]],
                "truth": [[round(x, 3) for x in run.truth(number)] for number in run.snapshot[new]],
                "links": run.links,
            }


@contextmanager
def live_page(plan: Plan) -> Iterator[LivePage]:
    """Serve a run's page from a thread of this process until the block ends."""
    page = LivePage(plan)
    thread = threading.Thread(target=page.serve, name="live page", daemon=True)
    thread.start()
    try:
        yield page
    finally:
        page.close()
        thread.join()


def _handler(page: LivePage) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = 10

        def do_GET(self) -> None:
            with contextlib.suppress(ConnectionError):  # who asked may have left
                self._reply(*page.answer(self.path))

        def _reply(self, status: HTTPStatus, kind: str, content: bytes) -> None:
            self.send_response(status)
            for name, value in (
                ("Content-Type", f"{kind}; charset=utf-8"),
                ("Content-Length", str(len(content))),
                ("Content-Security-Policy", _POLICY),
                ("Cache-Control", "no-store"),
                ("Referrer-Policy", "no-referrer"),
                ("X-Content-Type-Options", "nosniff"),
            ):
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            """Say nothing: the terminal is the run's."""

    return Handler

"""A page in headless Chromium, over the DevTools protocol on pipes: no driver, no socket, no further package.

Messages are JSON, each ended by a zero byte; the browser reads from its descriptor 3 and writes to 4
(``--remote-debugging-pipe``).
"""

import base64
import itertools
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")
LIMIT_S = 60


def chromium() -> str:
    """Path of the browser; where it is missing the test fails in a sentence."""
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        pytest.fail("Chromium is missing: run .ci/browser as root, which installs it.", pytrace=False)
    return found


class Page:
    """One tab. `complaints`: errors and warnings of its console, exceptions, and requests that it should not make."""

    def __init__(self, to: int, back: int) -> None:
        self._to, self._back = to, os.fdopen(back, "rb")
        self._numbers = itertools.count(1)
        self._session: str | None = None
        self._own = ""  # requests that the page may make begin with it
        self.complaints: list[str] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **arguments: Any) -> Any:
        """Call a method and return its result; what the page does meanwhile is noted."""
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": arguments}
        session = {} if self._session is None else {"sessionId": self._session}
        os.write(self._to, json.dumps(message | session).encode() + b"\0")
        while True:
            answer = self._read()
            if answer.get("id") == number:
                assert "error" not in answer, answer
                return answer["result"]

    def open(self, page: Path | str, width: int, scheme: str) -> None:
        """Open a page in a window of a width [px], light or dark, and wait until it is drawn.

        It is a file, or an address, of which it may request further ones.
        """
        self.complaints.clear()
        screen = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
        self.call("Emulation.setDeviceMetricsOverride", **screen)
        media = [{"name": "prefers-color-scheme", "value": scheme}]
        self.call("Emulation.setEmulatedMedia", features=media)
        address = page if isinstance(page, str) else page.resolve().as_uri()
        self._own = address
        self.call("Page.navigate", url=address)
        while self._read().get("method") != "Page.loadEventFired":
            pass
        self.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")

    def evaluate(self, expression: str) -> Any:
        """Return the value of a JavaScript expression."""
        done = self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in done, done["exceptionDetails"]
        return done["result"].get("value")

    def drag(self, selector: str, begin: tuple[float, float], end: tuple[float, float]) -> None:
        """Drag the mouse over an element, from and to fractions of its width and height."""
        area = self.evaluate(
            f"(() => {{ const it = document.querySelector({selector!r}); it.scrollIntoView({{block: 'center'}});"
            " const box = it.getBoundingClientRect(); return [box.x, box.y, box.width, box.height]; })()"
        )
        (left, top, wide, high), ways = area, ("mousePressed", "mouseMoved", "mouseReleased")
        for way, (x, y) in zip(ways, (begin, end, end), strict=True):
            place = {"x": left + x * wide, "y": top + y * high, "button": "left", "buttons": 1, "clickCount": 1}
            self.call("Input.dispatchMouseEvent", type=way, **place)

    def screenshot(self, path: Path) -> None:
        """Write a picture of the whole page."""
        size = self.call("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}
        data = self.call("Page.captureScreenshot", captureBeyondViewport=True, clip=clip)["data"]
        path.write_bytes(base64.b64decode(data))

    def _read(self) -> dict[str, Any]:
        data = bytearray()
        while (byte := self._back.read(1)) != b"\0":
            assert byte, "the browser has ended"
            data += byte
        message: dict[str, Any] = json.loads(data)
        told, method = message.get("params", {}), message.get("method")
        if method == "Runtime.exceptionThrown":
            self.complaints.append(json.dumps(told["exceptionDetails"]))
        elif (method == "Runtime.consoleAPICalled" and told["type"] in ("error", "warning", "assert")) or (
            method == "Log.entryAdded"
        ):
            self.complaints.append(json.dumps(told))
        elif (
            method == "Network.requestWillBeSent"
            and told["request"]["url"].startswith("http")
            and not told["request"]["url"].startswith(self._own)
        ):
            self.complaints.append(f"request to {told['request']['url']}")
        return message


@contextmanager
def browser() -> Iterator[Page]:
    """Start a browser and give its page."""
    theirs, to = os.pipe()
    back, from_them = os.pipe()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-dev-shm-usage"]
        shell = f'exec 3<&{theirs} 4>&{from_them}; exec "$@"'
        options += [f"--user-data-dir={profile}", "--remote-debugging-pipe"]
        process = subprocess.Popen(
            ["bash", "-c", shell, "bash", chromium(), *options],
            pass_fds=(theirs, from_them), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(theirs)
        os.close(from_them)
        page = Page(to, back)
        try:
            yield page
        finally:
            page.call("Browser.close") if process.poll() is None else None
            os.close(to)
            page._back.close()
            process.wait(LIMIT_S)

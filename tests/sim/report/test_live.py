"""The live view: a page of this machine that shows a run while it goes on, to those who know its address."""

import dataclasses
import json
import re
import socket
import struct
import threading
import time
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlsplit

import browser
import numpy as np
import pyarrow.parquet as pq
import pytest

import cli
from sim.emulate.emulator import run_plan
from sim.plan.outcome import Progress
from sim.plan.plan import load_plan
from sim.plan.settings import EmulateSettings
from sim.report.live import LivePage, live_page
from sim.report.run_data import run_data


def asked(address: str, path: str | None = None) -> tuple[int, str, dict[str, str]]:
    """Status, text and headers of the answer to a request for an address, or for another path at its port."""
    place = urlsplit(address)
    connection = HTTPConnection(place.hostname or "", place.port, timeout=10)
    connection.request("GET", place.path if path is None else path)
    answer = connection.getresponse()
    text = answer.read().decode()
    connection.close()
    return answer.status, text, {name.lower(): value for name, value in answer.getheaders()}


def test_a_run_is_watched_and_nothing_is_told_to_others(
    world: EmulateSettings, tab: browser.Page, tmp_path: Path
) -> None:
    seen: list[tuple[Progress, dict[str, object]]] = []
    plan = load_plan(dataclasses.replace(world, controls=False, report=False))

    def look(page: LivePage, progress: Progress) -> None:
        page.note(progress)
        place = urlsplit(page.address)
        status, text, _ = asked(page.address, f"{place.path}data?since=0")
        assert status == 200
        seen.append((progress, json.loads(text)))
        if progress.stage != "write":
            return
        assert place.hostname == "127.0.0.1" and len(place.path) > 30
        wrong = place.path[:-2] + ("a/" if place.path[-2] != "a" else "b/")
        for path in ("/", "/data", wrong, f"{wrong}data", "//", f"/x{place.path}", "x://["):
            status, text, _ = asked(page.address, path)
            assert status == 403 and "scene" not in text and "error" not in text, path
        since = f"{place.path}data?since="
        for path in (f"{place.path}else", f"{since}-1", f"{since}x", since + 5000 * "9", place.path[:-1]):
            assert asked(page.address, path)[0] == 404, path
        status, text, headers = asked(page.address)
        assert (
            status == 200
            and headers["cache-control"] == "no-store"
            and "connect-src 'self'" in headers["content-security-policy"]
        )
        assert not re.search(r"https?://", text.replace("http://www.w3.org/2000/svg", ""))
        assert json.loads(asked(page.address, f"{place.path}data?since=3")[1])["error"] == seen[-1][1]["error"][3:]
        for width, scheme in ((1280, "light"), (390, "dark")):
            tab.open(page.address, width, scheme)
            tab.evaluate("new Promise((done) => { const see = () => news ? done() : setTimeout(see, 20); see(); })")
            assert tab.complaints == [] and tab.evaluate("document.documentElement.scrollWidth") <= width
            fixes = len(seen[-1][1]["error"])
            assert tab.evaluate("document.querySelectorAll('#map circle').length") == fixes
            assert tab.evaluate("document.querySelectorAll('#cdf path').length") == 1
            assert f"{fixes} fixes so far" in tab.evaluate("document.getElementById('curves').innerText")
            assert tab.evaluate("document.querySelectorAll('#links tbody tr').length") == 3
            tab.screenshot(tmp_path / f"live-{width}.png")

    with live_page(plan) as page:
        folder = run_plan(plan, lambda progress: look(page, progress)).folder
        tab.evaluate("document.title")
    with pytest.raises(ConnectionRefusedError):
        asked(page.address)
    ended = "document.getElementById('subtitle').textContent.includes('has ended')"
    tab.evaluate(f"new Promise((done) => {{ const see = () => {ended} ? done() : setTimeout(see, 20); see(); }})")
    fixes = pq.read_table(folder / "fixes.parquet")
    last = seen[-1][1]
    np.testing.assert_allclose(last["error"], fixes["error_3d_m"].to_numpy(), atol=1e-4)
    np.testing.assert_allclose(np.array(last["estimate"])[:, 0], fixes["x_m"].to_numpy(), atol=1e-3)
    np.testing.assert_allclose(np.array(last["truth"])[:, 1], fixes["true_y_m"].to_numpy(), atol=1e-3)
    summary = json.loads((folder / "summary.json").read_text())
    links = last["links"].values()
    for fate in ("delivered", "duplicate", "corrupt", "rejected"):
        assert sum(link[fate] for link in links) == summary["frames"][fate] - _down(folder, fate)
    for fate in ("late", "used"):
        assert sum(link[fate] for link in links) == summary["reports"][fate] > 0
    during = [(progress.done, found) for progress, found in seen if progress.stage == "run"]
    assert during and all(found["done"] == done and len(found["error"]) < len(fixes) for done, found in during)


def test_whoever_leaves_before_the_answer_is_not_missed(
    world: EmulateSettings, capfd: pytest.CaptureFixture[str]
) -> None:
    with live_page(load_plan(world)) as page:
        place, threads = urlsplit(page.address), threading.active_count()
        with page._lock:  # the answer waits
            caller = socket.create_connection((place.hostname, place.port))
            caller.sendall(f"GET {place.path}data HTTP/1.0\r\n\r\n".encode())
            while threading.active_count() == threads:
                time.sleep(0.01)
            caller.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            caller.close()  # by a reset
        while threading.active_count() > threads:
            time.sleep(0.01)
        assert asked(page.address)[0] == 200
    assert "Traceback" not in capfd.readouterr().err


def _down(folder: Path, fate: str) -> int:
    """Frames of a fate from the cloud to base stations."""
    tables = [pq.read_table(path, columns=["direction", "frame_fate"]) for path in folder.glob("links/bs-*.parquet")]
    return sum(row == {"direction": "down", "frame_fate": fate} for table in tables for row in table.to_pylist())


@pytest.mark.parametrize(
    ("view", "told"), [("page", r"live view: http://127\.0\.0\.1:\d+/\S{32}/"), ("terminal", r"48 of\s+48")]
)
def test_the_command_shows_the_run(
    run: Path, view: str, told: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    words = run_data(run)["repeat"]["command"].split()[2:]
    assert cli.main([*words, "--no-report", "--no-controls", "--output", str(tmp_path), "--json", "--live", view]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["fixes"] > 0 and re.search(told, err)

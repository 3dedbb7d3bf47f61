"""The command line on runs: what is printed, and what is there afterwards."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import tiny_world

import cli
import sim.plan.plan
import sim.world.store


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Options of a short emulation in process, of a world in the working directory."""
    monkeypatch.chdir(tmp_path)
    settings = tiny_world.write(tmp_path)
    for module in (sim.plan.plan, sim.world.store):
        monkeypatch.setattr(module, "ASSET_FOLDER", tmp_path / "assets", raising=False)
    chosen = {"scenario": settings.scenario, "bs": 3, "snapshots": 20, "driver": "process", "weights": settings.weights}
    return [word for name, value in chosen.items() for word in (f"--{name}", str(value))]


def test_a_run_is_reported_inspected_and_replayed(tiny: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["emulate", *tiny, "--bits", "4"]) == 0
    out = capsys.readouterr().out
    for pattern in (
        r"payload 128 bit per BS and fix, 1\.56 % of lossless CSI",
        r"side information +counted +32 bit +240 B",
        r"header and CRC +counted +19 B +1 140 B",
        r"ZMTP frame headers +counted +2 B +120 B",
        r"frames over TCP/IP +modelled",
        r"position error \[m\] +mean +95 % interval +median +p90",
        r"3D +[\d.]+ +[\d.]+ … [\d.]+ +[\d.]+ +[\d.]+",
        r"latency \[ms, simulated clock\] +p50 +p95 +p99",
        r"delivered +60",
        r"used +60",
        r"fixes/s",
    ):
        assert re.search(pattern, out), pattern
    folder = out.split("run folder: ")[1].strip()
    assert Path(folder).is_dir()

    assert cli.main(["inspect", folder]) == 0
    assert re.search(r"BS 2 +2 560 +640 +380", capsys.readouterr().out)
    assert cli.main(["inspect", folder, "--link", "1", "--frame", "3"]) == 0
    out = capsys.readouterr().out
    assert re.search(r"sequence number +3", out) and "32 of 4 bit" in out and "bytes 19 to 34" in out
    assert cli.main(["inspect", folder, "--link", "7"]) == 2
    assert cli.main(["inspect", folder, "--link", "1", "--frame", "99"]) == 2
    assert cli.main(["inspect", folder, "--frame", "3"]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 3

    assert cli.main(["replay", folder]) == 0
    assert capsys.readouterr().out == (
        "20 of 20 fixes are identical to the last bit; the largest difference is 0 m, of standard deviations 0 m.\n"
    )
    assert cli.main(["audit", folder]) == 0
    assert re.search(r"holds +CRC-32 +60 frames.*\nThe run holds\.", capsys.readouterr().out, re.DOTALL)


IMPAIRED = "--rate 1mbit --delay 2ms --jitter 1ms --loss 20% --duplicate 10% --corrupt 10% --deadline 8 --window 3"


def test_impaired_links_are_reported_filtered_and_audited(tiny: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    options = [*tiny, *IMPAIRED.split(), "--batch", "2", "--interval", "4", "--bundle", "2", "--no-controls"]
    assert cli.main(["emulate", *options]) == 0
    out = capsys.readouterr().out
    for pattern in (
        r"link: requested → achieved +\[Mbit/s\] +\[ms\] +\[%\] +\[%\] +\[%\]",
        r"BS 2 up +1 → – +3 → [\d.]+ . +20 → [\d.]+ ✓ +10 → [\d.]+ ✓ +10 → [\d.]+ ✓",
        r"receive window, reports of round 0: \d+ early, \d+ on time, \d+ late",
        r"\d+ fixes of 1\d positions in 20 snapshots",
    ):
        assert re.search(pattern, out), pattern
    folder = out.split("run folder: ")[1].strip()
    summary = json.loads((Path(folder) / "summary.json").read_text())

    assert cli.main(["audit", folder]) == 0
    assert "The run holds." in capsys.readouterr().out
    assert cli.main(["inspect", folder, "--fate", "dropped", "--fate", "corrupt", "--most", "1000"]) == 0
    out = capsys.readouterr().out
    bad = sum(summary["frames"][fate] for fate in ("dropped", "corrupt"))
    assert len(re.findall(r"BS \d +up .*(?:dropped|corrupt) ", out)) == 2 * bad  # two reports a frame
    assert re.search(r" loss ", out) and re.search(r" (checksum|length|field|type) ", out)
    assert cli.main(["inspect", folder, "--from", "0", "--most", "3"]) == 0
    assert re.search(r"\d+ more; --most \d+ shows all", capsys.readouterr().out)
    assert cli.main(["inspect", folder, "--link", "1", "--from", "0.01", "--to", "0.03"]) == 0
    times = re.findall(r"^ +([\d.]+) +BS 1 ", capsys.readouterr().out, re.MULTILINE)
    assert times and all(10 <= float(t) < 30 for t in times)
    assert cli.main(["inspect", folder, "--direction", "down", "--from", "0"]) == 0
    assert "BS" not in capsys.readouterr().out
    assert cli.main(["inspect", folder, "--timeline"]) == 0
    seconds = re.findall(r"^ +0 +(\d+) +0 .* (\d+) $", capsys.readouterr().out, re.MULTILINE)
    assert seconds == [(str(sum(summary["frames"].values())), str(summary["fixes"]))]
    assert cli.main(["inspect", folder, "--link", "0", "--frame", "1"]) == 0
    out = capsys.readouterr().out
    assert "a bundle of 2 reports" in out and "report 1: snapshot 3, round 0" in out and out.count("32 of 4 bit") == 2


def test_a_random_subset_is_reported_inspected_and_swept(tiny: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    chosen = [*tiny, "--bs", "2", "--random-subset"]  # the last --bs counts
    assert cli.main(["emulate", *chosen, "--no-controls"]) == 0
    out = capsys.readouterr().out
    assert "random subset of 2 of 3 BS in each snapshot, 20 snapshots" in out and re.search(r"used +40\b", out)
    folder = out.split("run folder: ")[1].strip()
    for command in ("inspect", "audit", "replay"):
        assert cli.main([command, folder]) == 0
    assert re.search(r"BS 2 +[\d ]+", capsys.readouterr().out)
    Path("links.toml").write_text('[bs.2.up]\noutage = "0s-1s"\n')
    assert cli.main(["emulate", *chosen, "--links", "links.toml", "--no-controls", "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["bs_present"] == 3 and summary["fixes"] == 20 and summary["reports"]["lost"] > 5
    given = [word for word in chosen if not word.startswith("--driver") and word != "process"]
    command = ["sweep", *given, "--bs", "1,2", "--snapshots", "5", "--bits", "4"]
    assert cli.main(command) == 0
    rows = json.loads(Path("sweep/sweep.json").read_text())["rows"]
    assert [row["payload_bits_per_fix"] for row in rows] == [128, 256] and {row["fixes"] for row in rows} == {5}


def test_a_link_file_is_overridden_by_options(tiny: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    Path("links.toml").write_text('[default]\ndelay = "2ms"\n[bs.1.up]\nloss = "100%"\n')
    options = ["--links", "links.toml", "--delay", "5ms", "--no-controls"]
    assert cli.main(["emulate", *tiny, *options, "--json"]) == 0
    links = {(link["bs"], link["direction"]): link for link in json.loads(capsys.readouterr().out)["links"]}
    assert links[0, "up"]["requested"]["delay_s"] == 0.005
    assert links[0, "up"]["achieved"]["delay_mean_s"] == pytest.approx(0.005)
    assert links[1, "up"]["requested"]["loss"] == 1.0 == links[1, "up"]["achieved"]["loss"]


def test_inspect_and_replay_fail_where_a_run_does_not_hold(tiny: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["emulate", *tiny, "--bits", "2", "--no-controls"]) == 0
    assert "note: The weights were trained for 4 bits" in capsys.readouterr().out
    (folder,) = Path("runs").iterdir()
    assert cli.main(["inspect", str(folder)]) == 0
    assert "books balance: 60 frames of 60 reports" in capsys.readouterr().out

    fixes = pq.read_table(folder / "fixes.parquet")
    moved = fixes.set_column(fixes.column_names.index("x_m"), "x_m", pc.add(fixes["x_m"], 0.01))
    pq.write_table(moved, folder / "fixes.parquet")
    assert cli.main(["replay", str(folder)]) == 1
    assert "The replay does not confirm the run" in capsys.readouterr().out

    pq.write_table(fixes, folder / "fixes.parquet")
    (folder / "links" / "bs-001.parquet").unlink()
    assert cli.main(["replay", str(folder)]) == 1
    assert "20 fixes were left out" in capsys.readouterr().out
    assert cli.main(["replay", str(folder), "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert not told["ok"] and (told["total"], told["compared"], told["max_difference_m"]) == (20, 0, 0)
    assert cli.main(["inspect", str(folder)]) == 1
    assert "books do not balance: reports in a fix that are not used: 20" in capsys.readouterr().out
    cut(folder / "fixes.parquet")
    assert cli.main(["replay", str(folder)]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def cut(path: Path) -> None:
    """Keep the first half of a file."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize(
    ("change", "more", "pattern"),
    [
        (lambda: None, "--weights gone.safetensors", r"weights gone.safetensors are missing"),
        (lambda: cut(Path("tiny.safetensors")), "", r"tiny.safetensors are truncated or damaged"),
        (lambda: Path("tiny.safetensors").write_text("{}"), "", r"tiny.safetensors are truncated or damaged"),
        (lambda: Path("assets/tiny/test.npz").unlink(), "", r"test.npz"),
        (lambda: cut(Path("assets/tiny/test.npz")), "", r"path data .*test.npz is truncated or damaged"),
        (lambda: cut(Path("assets/tiny/train-positions.npz")), "", r"train-positions.npz .*damaged"),
        (
            lambda: None, "--scheme ekk",
            r"no scheme 'ekk'.*ecc-klt, ecc-rd, ecc-total, .*nrppa-path, nrppa-path-learned, nrppa-sample, "
            r"nrppa-sample-learned, rss, .*tdoa, .*toa-aoa",
        ),
        (lambda: None, "--bs 4", r"--bs 4 is more than the 3 sites"),
        (lambda: None, "--bits lossless", r"weights .*tiny.safetensors do not fit"),
        (lambda: Path("runs").write_text(""), "", r"--output runs"),
    ],
)  # fmt: skip
def test_bad_files_are_one_sentence_and_leave_no_run_behind(
    tiny: list[str], capsys: pytest.CaptureFixture[str], change: Callable[[], object], more: str, pattern: str
) -> None:
    change()
    assert cli.main(["emulate", *tiny, *more.split()]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert len(err.splitlines()) == 1, err
    assert re.search(pattern, err), err
    assert not Path("runs").is_dir() or not list(Path("runs").iterdir())


def test_ctrl_c_in_a_run_says_where_its_journal_is(
    tiny: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from sim.terminal import ProgressBar

    def stopped(_: ProgressBar, description: str, done: float, *_others: object) -> None:
        if description == "positioning" and done:
            raise KeyboardInterrupt

    monkeypatch.setattr(ProgressBar, "update", stopped)
    assert cli.main(["emulate", *tiny]) == 130
    (part,) = Path("runs").glob("*.part")
    assert capsys.readouterr().err == f"Stopped; every frame sent until then is journaled in {part}.\n"
    assert cli.main(["inspect", str(part), "--recover"]) == 0
    assert re.search(r"recovered \d+ frames", capsys.readouterr().out)
    assert cli.main(["audit", str(part)]) == 0
    assert re.search(r"left out +summary.*\nholds +journals +3 ledgers", capsys.readouterr().out)
    assert cli.main(["inspect", str(part), "--timeline"]) == 0
    assert re.search(r"\n +0 +\d+ +0 ", capsys.readouterr().out)


def test_what_is_printed_is_there_as_json(tiny: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    def printed(*words: str, status: int = 0) -> Any:
        assert cli.main([*words, "--json"]) == status
        return json.loads(capsys.readouterr().out)

    summary = printed("emulate", *tiny, "--loss", "20%")
    folder = summary.pop("folder")
    assert summary == json.loads((Path(folder) / "summary.json").read_text())

    totals = printed("inspect", folder)
    assert totals["books"] == {"balance": True, "frames": 60, "reports": 60, "problems": []}
    assert sum(link["reports_lost"] for link in totals["links"]) == summary["reports"]["lost"] > 0
    assert [link["bs"] for link in printed("inspect", folder, "--link", "1")["links"]] == [1]
    lost = printed("inspect", folder, "--fate", "lost", "--most", "2")
    assert len(lost["frames"]) == 2 and lost["count"] == summary["reports"]["lost"]
    assert sum(second["fixes"] for second in printed("inspect", folder, "--timeline")["seconds"]) == summary["fixes"]
    frame = printed("inspect", folder, "--link", "1", "--frame", "3")
    ledger = pq.read_table(Path(folder) / "links" / "bs-001.parquet").to_pylist()
    row = next(row for row in ledger if row["seq"] == 3)
    assert bytes.fromhex(frame["reports"][0]["payload"]["data"]) == row["payload"]
    assert len(frame["reports"][0]["index"]) == 32 and len(bytes.fromhex(frame["data"])) == 39
    assert cli.main(["inspect", folder, "--recover", "--json"]) == 2

    assert printed("audit", folder)["holds"]
    (Path(folder) / "links" / "bs-001.parquet").unlink()
    found = printed("audit", folder, status=1)
    assert not found["holds"] and "fails" in {finding["state"] for finding in found["findings"]}
    assert not printed("inspect", folder, status=1)["books"]["balance"]


def test_quiet_leaves_errors_and_json(tiny: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["emulate", *tiny, "--quiet"]) == 0
    assert capsys.readouterr() == ("", "")
    assert cli.main(["emulate", *tiny, "--quiet", "--json"]) == 0
    out, err = capsys.readouterr()
    assert Path(json.loads(out)["folder"]).is_dir() and not err
    assert cli.main(["emulate", *tiny, "--quiet", "--bits", "99"]) == 2
    out, err = capsys.readouterr()
    assert not out and len(err.splitlines()) == 1
    assert cli.main(["emulate", *tiny, "--quiet", "--live", "page"]) == 2
    assert capsys.readouterr().err == "--live shows the run and --quiet hides it: leave one of them out.\n"
    options = [*tiny[:6], *tiny[8:], "--bits", "2,4", "--output", "swept", "--quiet"]
    assert cli.main(["sweep", *options]) == 0
    assert capsys.readouterr() == ("", "") and list(Path("swept").glob("*.png"))


def test_doctor_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    status = cli.main(["doctor", "--json"])
    told = json.loads(capsys.readouterr().out)
    assert told["emulate_can_run"] == (status == 0)
    assert {"Python", "torch", "schemes"} <= {finding["name"] for finding in told["findings"]}


def test_a_run_is_repeated_with_changes(tiny: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["emulate", *tiny, "--bits", "2", "--seed", "7", "--loss", "10%", "--json"]) == 0
    first = json.loads(capsys.readouterr().out)
    assert cli.main(["emulate", "--from-run", first["folder"], "--json"]) == 0
    again = json.loads(capsys.readouterr().out)
    assert again["folder"] != first["folder"]
    for name in ("error_3d_m", "bytes", "reports", "bits", "seed", "weights_digest"):
        assert again[name] == first[name], name
    assert cli.main(["emulate", "--from-run", first["folder"], "--scheme", "rss", "--bits", "3", "--json"]) == 0
    other = json.loads(capsys.readouterr().out)
    assert (other["scheme"], other["bits"], other["seed"], other["snapshots"]) == ("rss", 3, 7, 20)
    assert other["reports"]["lost"] == first["reports"]["lost"] > 0
    assert cli.main(["sweep", "--from-run", first["folder"], "--bits", "2,4", "--output", "swept"]) == 0
    capsys.readouterr()
    rows = json.loads(Path("swept/sweep.json").read_text())["rows"]
    assert [row["settings"]["seed"] for row in rows] == ["7", "7"]
    assert rows[0]["error_3d_m"] == first["error_3d_m"]
    assert cli.main(["emulate", "--from-run", "nowhere"]) == 2
    assert "nowhere is not a run's folder" in capsys.readouterr().err

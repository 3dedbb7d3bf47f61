"""``diffloc-bits``: DiffLoc's error against the bits of a fix, and against the delay of its links.

Every point is an in-process emulation of all test positions with the real payloads. A point whose run is at hand with
the same settings, weights and test positions is not run again, so a study that was stopped resumes, and points that
are the same run once; points whose weights are missing say so. Networks are told apart as elsewhere: "ct" is the
consistency network, "unet" the diffusion.

Timing is the same throughout: snapshots so far apart that none waits for another, a deadline, one snapshot at a time,
links without a limit of their rate. On the simulated clock computing takes no time, so that all of a fix's latency is
its links' delay: a delay d each way makes it d + 2 d R with R rounds, and d with one message.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from fronthaul.link.link_file import link_plan
from sim.emulate.emulator import emulate
from sim.errors import UserError
from sim.files import write_rows, write_text
from sim.learn.diffloc.export import export_weights
from sim.learn.diffloc.jobs import FITS
from sim.plan.outcome import RunResult
from sim.plan.settings import EmulateSettings
from sim.plan.weights import load_weights
from sim.records.links import read_table
from sim.records.summary import error_statistics
from sim.reproduce.diffloc.bench import Bench
from sim.reproduce.diffloc.bits_figure import draw
from sim.reproduce.diffloc.bits_page import page
from sim.sweep.sweep import Inputs
from sim.world.scenario import Scenario, load_scenario
from sim.world.store import DATA_FOLDER, load_test_paths

NAME = "diffloc-bits"
DEADLINE_MS = 100.0
INTERVAL_MS = 250.0
"""Between two snapshots: the last frame of one, a deadline and two of the longest delays after it, is over by then."""
BITS = 8
"""Of DiffLoc's messages, where bits are not what is varied."""
DELAYS_MS = (0, 2, 5, 10, 20, 50)
EDGE_BITS: tuple[int | None, ...] = (2, 3, 4, 5, 6, 7, 8, None)
CENTRAL_BITS = (2, 3, 4, 5, 6, 7, 8)
ONE_SHOT_BITS = (3, 4, 5, 6, 7, 8)
ECC_BITS = (1, 2, 3, 4, 5, 6, 7, 8, None)
ECC_ALWAYS = (4,)
"""Shown as "not trained" where their weights are missing; others are left out then."""
DELAY_SNAPSHOTS = 100
"""Of error against delay: what delay does is the same for every snapshot."""
CT_STEPS, UNET_STEPS, UNET_PARTICLES = (2, 5, 20), 20, 16
_UNET_JOB = "paris-7-random-unet"
_FOLDER = DATA_FOLDER / "paris-7"

Record = dict[str, Any]
OnRow = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Point:
    """One emulation.

    Attributes:
        line: what it belongs to, see `bitspage`.
        settings: what is run; its `weights` may be missing.
        delay_ms: of each link, each way; None where the point is one of error against bits.
    """

    line: str
    settings: EmulateSettings
    delay_ms: int | None = None

    @property
    def name(self) -> str:
        """Unique in the study."""
        about = f"B = {self.settings.bits or 16}" if self.delay_ms is None else f"{self.delay_ms} ms"
        return f"{self.line}, {about}"


@dataclass(frozen=True)
class Study:
    """What is emulated.

    Attributes:
        base: DiffLoc's scenario, base stations, snapshots and consistency weights, and where runs are kept.
        unet: diffusion weights.
        ecc: scenario of the same users and sites for `ecc`.
        ecc_weights: its weights by bits.
        delays_ms: of links.
    """

    base: EmulateSettings
    unet: Path
    ecc: str
    ecc_weights: Mapping[int | None, Path]
    delays_ms: Sequence[int] = DELAYS_MS


def usual_study() -> Study:
    """All test positions of paris-7, seven base stations.

    Raises:
        UserError: path data are missing.
    """
    base = EmulateSettings(
        scenario="paris-7",
        bs=7,
        snapshots=len(load_test_paths(load_scenario("paris-7"))),
        output=_FOLDER / "runs" / NAME,
    )
    names: dict[int | None, str] = {bits: f"ecc-{'lossless' if bits is None else f'b{bits}'}" for bits in ECC_BITS}
    return Study(
        base,
        unet=_FOLDER / "diffloc-unet.safetensors",
        ecc="paris-7-ecc",
        ecc_weights={bits: _FOLDER / f"{name}.safetensors" for bits, name in names.items()},
    )


def points(study: Study) -> list[Point]:
    """Every point: those of error against bits, then those of error against delay."""
    base = replace(
        study.base,
        scheme="diffloc",
        bits=BITS,
        driver="process",
        interval_ms=INTERVAL_MS,
        deadline_ms=DEADLINE_MS,
        batch=1,
        capture=False,
        controls=False,
    )
    unet = replace(base, weights=study.unet)
    ecc = replace(base, scheme="ecc", scenario=study.ecc)
    ecc_bits = [b for b, path in study.ecc_weights.items() if b in ECC_ALWAYS or path.is_file()]

    def edge(of: EmulateSettings, steps: int, particles: int = 1) -> EmulateSettings:
        more = {"particles": particles} if particles > 1 else {}
        return _with(of, steps=steps, fusion="gauss", where="edge", **more)

    def central(of: EmulateSettings) -> EmulateSettings:
        return _with(of, steps=2, fusion="gauss", where="central")

    def one_shot(of: EmulateSettings, steps: int) -> EmulateSettings:
        return _with(of, steps=steps, where="one-shot")

    unet_line = f"(a) edge, UNet, {UNET_STEPS} steps"
    found = [
        *(Point("(a) edge, CT, 2 steps", edge(replace(base, bits=bits), 2)) for bits in EDGE_BITS),
        Point(unet_line, edge(unet, UNET_STEPS)),
        Point(f"{unet_line}, {UNET_PARTICLES} particles", edge(unet, UNET_STEPS, UNET_PARTICLES)),
        *(Point("(b) central, CT", central(replace(base, bits=bits))) for bits in CENTRAL_BITS),
        *(Point("(c) one-shot, CT", one_shot(replace(base, bits=bits), 2)) for bits in ONE_SHOT_BITS),
        Point("(c) one-shot, UNet", one_shot(unet, UNET_STEPS)),
        *(Point("ECC", replace(ecc, bits=bits, weights=study.ecc_weights[bits])) for bits in ecc_bits),
    ]
    delayed = [
        *((f"(a) edge, CT, {steps} steps", edge(base, steps)) for steps in CT_STEPS),
        (unet_line, edge(unet, UNET_STEPS)),
        ("(b) central, CT", central(base)),
        ("(c) one-shot, CT", one_shot(base, 2)),
        ("ECC", replace(ecc, bits=ECC_ALWAYS[0], weights=study.ecc_weights[ECC_ALWAYS[0]])),
    ]
    few = min(base.snapshots, DELAY_SNAPSHOTS)
    return [
        *found,
        *(Point(line, _delayed(replace(of, snapshots=few), ms), ms) for line, of in delayed for ms in study.delays_ms),
    ]


def _with(settings: EmulateSettings, **options: str | int) -> EmulateSettings:
    return replace(settings, options=tuple(options.items()))


def _delayed(settings: EmulateSettings, ms: int) -> EmulateSettings:
    if not ms:  # the same run as without links
        return settings
    return replace(settings, links=link_plan({"default": {"delay": f"{ms}ms"}}))


def reproduce(
    output: Path,
    *,
    study: Study | None = None,
    train: bool = True,
    on_row: OnRow = lambda *_: None,
) -> Path:
    """Run what is missing; write ``diffloc-bits.json``, ``.md`` and ``.png`` into `output`; returns the page.

    Args:
        output: folder.
        study: what is emulated; by default `usual_study`, whose diffusion weights are made where they are missing.
        train: run the training of the diffusion weights if it has not been.
        on_row: called with a point's name, points done, points in all.

    Raises:
        UserError: path data are missing, or a run fails; points before stay.
    """
    if study is None:
        study = usual_study()
        _make_unet(study.unet, train, on_row)
    output.mkdir(parents=True, exist_ok=True)
    store = output / f"{NAME}.json"
    wanted = points(study)
    stored: list[Record] = json.loads(store.read_text())["points"] if store.is_file() else []
    results = {record["key"]: record["result"] for record in stored if record["result"] is not None}
    inputs = Inputs()
    keys = [_key(inputs, point.settings) for point in wanted]
    about = _about(study)

    text = output / f"{NAME}.md"

    def write() -> None:
        rows = [_record(point, key, results.get(key)) for point, key in zip(wanted, keys, strict=True)]
        table = {**about, "points": rows}
        write_rows(store, table)
        draw(output / f"{NAME}.png", table)
        write_text(text, page(NAME, table))

    for number, (point, key) in enumerate(zip(wanted, keys, strict=True)):
        on_row(point.name, number, len(wanted))
        if key is not None and key not in results:
            results[key] = _measured(point)
            write()  # a study that is stopped has a page of what there is
    write()
    on_row("done", len(wanted), len(wanted))
    return text


def raw_bits(scenario: Scenario, stations: int) -> int:
    """Bits of the fingerprints of all base stations in float32: magnitudes and phases of all pairs and taps."""
    _, pairs, taps = scenario.csi_shape
    return stations * 2 * pairs * taps * 32  # DiffLoc Eq. 4


def _about(study: Study) -> Record:
    scenario = load_scenario(study.base.scenario)
    return {
        "scenario": scenario.name,
        "bs": study.base.bs,
        "snapshots": study.base.snapshots,
        "raw_fingerprint_bits": raw_bits(scenario, study.base.bs),
        "deadline_ms": DEADLINE_MS,
        "interval_ms": INTERVAL_MS,
    }


def _record(point: Point, key: str | None, result: Record | None) -> Record:
    settings = point.settings
    return {
        "name": point.name,
        "line": point.line,
        "bits": settings.bits or 16,
        "delay_ms": point.delay_ms,
        "scenario": settings.scenario,
        "options": dict(settings.options),
        "key": key,
        "result": result,
    }


def _key(inputs: Inputs, settings: EmulateSettings) -> str | None:
    """Digest of what a point depends on; None where its weights are missing, or are of another payload."""
    try:
        key = inputs.key(settings)
        other = settings.scheme == "ecc" and load_weights(settings.weights or Path()).config["bits"] != settings.bits
    except UserError:
        return None
    return None if other else key


def _measured(point: Point) -> Record:
    begin = time.monotonic()
    result = emulate(point.settings)
    columns = ["error_2d_m", "rounds", "total_ns"]
    fixes = read_table(result.folder / "fixes.parquet").select(columns)
    summary, snapshots = result.summary, result.summary["snapshots"]
    asked = 1 + (summary["options"].get("steps", 0) if summary["payload_bits_per_answer"] else 0)
    rounds = fixes["rounds"].to_numpy()
    total_ms = fixes["total_ns"].to_numpy() / 1e6
    return {
        "snapshots": snapshots,
        "fixes": len(fixes),
        "cut": int((rounds < asked).sum()),
        "steps_p50": float(np.median(rounds)) - 1 if len(fixes) else None,
        "error_2d_m": error_statistics(fixes["error_2d_m"].to_numpy(), summary["seed"]),
        "coverage_90": summary["coverage_90"],
        "latency_ms": {f"p{p}": float(np.percentile(total_ms, p)) for p in (50, 95)} if len(fixes) else None,
        "per_snapshot": _sizes(result, snapshots),
        "weights_digest": summary["weights_digest"],
        "commit": summary["commit"],
        "date": datetime.now(UTC).date().isoformat(),
        "minutes": round((time.monotonic() - begin) / 60, 2),
    }


def _sizes(result: RunResult, snapshots: int) -> Record:
    """Payload up and down, side information and headers [bit]; what crosses the wire [B]: all of a snapshot."""
    summary = result.summary
    counted = summary["bytes"]

    def payload(direction: str) -> float:
        bits: float = sum(link["payload_bits"] for link in summary["links"] if link["direction"] == direction)
        return bits / snapshots

    return {
        "payload_up_bits": payload("up"),
        "payload_down_bits": payload("down"),
        "side_bits": 8 * counted["side"] / snapshots,
        "header_bits": 8 * (counted["header"] + counted["padding"] + counted["zmtp"]) / snapshots,
        "stream_bytes": sum(link["stream_bytes"] for link in summary["links"]) / snapshots,
        "ethernet_bytes": summary["bytes_modelled"]["ethernet"] / snapshots,
    }


def _make_unet(path: Path, train: bool, on_row: OnRow) -> None:
    """Export the diffusion weights where they are missing, or older than their training."""
    bench = Bench()
    if train and not bench.is_trained(_UNET_JOB):
        on_row(f"training {_UNET_JOB}", 0, 1)
        bench.train(_UNET_JOB)
    if not bench.is_trained(_UNET_JOB):
        return
    exported = sorted(path.parent.glob(f"{path.stem}*.safetensors"))
    trained_s = (FITS / f"{_UNET_JOB}.safetensors").stat().st_mtime
    if not exported or min(file.stat().st_mtime for file in exported) < trained_s:
        on_row(f"exporting {path.name}", 0, 1)
        export_weights(bench.trained(_UNET_JOB), load_scenario("paris-7"), path)

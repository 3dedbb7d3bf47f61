"""``diffloc-bits``: DiffLoc's error against the bits of a fix, and against the delay of its links.

Every point is an in-process emulation with real payloads, of all test positions or, against delay, of the first
`DELAY_SNAPSHOTS`. Points with the same settings are run once, and those whose weights are missing are marked. "ct" is
the consistency network, "unet" the diffusion network.

Timing is the same throughout: snapshots so far apart that none waits for another, a deadline, one snapshot at a time,
links without rate limit. On the simulated clock computing takes no time, so that a fix's latency is due to link delay
alone: with a delay d each way it is d + 2 d R for R rounds, and d for one message.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from scipy.spatial import cKDTree

from fronthaul.link.link_file import link_plan
from sim.drawing import COLOURS, error_bars, new_axes, save_figure
from sim.learn.diffloc.export import export_weights
from sim.learn.diffloc.jobs import FITS
from sim.plan.outcome import RunResult
from sim.plan.plan import load_test_set
from sim.plan.settings import EmulateSettings
from sim.records.fix_table import true_positions
from sim.records.links import read_table
from sim.records.statistics import Cluster, sample_statistics
from sim.reproduce import markdown
from sim.reproduce.diffloc.bench import Bench
from sim.reproduce.emulations import Emulations
from sim.reproduce.markdown import NOT_TRAINED, Record, metres, table, with_interval
from sim.reproduce.rows import Result, Row
from sim.world.scenario import Scenario, load_scenario
from sim.world.store import DATA_FOLDER, load_test_paths

if TYPE_CHECKING:
    import pyarrow as pa
    from matplotlib.axes import Axes

NAME = "diffloc-bits"
DEADLINE_MS = 100.0
INTERVAL_MS = 250.0
"""Snapshot interval, longer than the deadline plus twice the longest delay: no frame outlasts its snapshot's slot."""
BITS = 8
"""Resolution of DiffLoc's messages where it is not varied."""
DELAYS_MS = (0, 2, 5, 10, 20, 50)
EDGE_BITS: tuple[int | None, ...] = (2, 3, 4, 5, 6, 7, 8, None)
CENTRAL_BITS = (2, 3, 4, 5, 6, 7, 8)
ONE_SHOT_BITS = (3, 4, 5, 6, 7, 8)
ECC_BITS = (1, 2, 3, 4, 5, 6, 7, 8, None)
ECC_ALWAYS = (4,)
"""Resolutions shown as "not trained" if their weights are missing; others are then left out."""
DELAY_SNAPSHOTS = 100
"""Number of snapshots for error against delay: delay affects every snapshot alike."""
CT_STEPS, UNET_STEPS, UNET_PARTICLES = (2, 5, 20), 20, 16
_UNET_JOB = "paris-7-random-unet"
_FOLDER = DATA_FOLDER / "paris-7"
_MARKERS = {"(a)": "o", "(b)": "s", "(c)": "^", "ECC": "D"}


@dataclass(frozen=True)
class Point:
    """One emulation.

    Attributes:
        line: the line that it belongs to, as in a table's first column.
        settings: settings of the run; the file `weights` may be missing.
        delay_ms: delay of each link, each way [ms]; None for points of error against bits.
    """

    line: str
    settings: EmulateSettings
    delay_ms: int | None = None

    @property
    def name(self) -> str:
        """Name, unique in the study."""
        about = f"B = {self.settings.bits or 16}" if self.delay_ms is None else f"{self.delay_ms} ms"
        return f"{self.line}, {about}"


@dataclass(frozen=True)
class Study:
    """Inputs of the study.

    Attributes:
        base: DiffLoc's scenario, base stations, snapshots and consistency weights, and the folder of the runs.
        unet: diffusion weights.
        ecc: scenario with the same users and sites for the scheme `ecc`.
        ecc_weights: weights of `ecc` by bits.
        delays_ms: link delays [ms].
    """

    base: EmulateSettings
    unet: Path
    ecc: str
    ecc_weights: Mapping[int | None, Path]
    delays_ms: Sequence[int] = DELAYS_MS


def usual_study() -> Study:
    """Return the default study: all test positions of paris-7, seven base stations.

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
    """Return all points: those of error against bits, then those of error against delay."""
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


class BitsBench(Emulations):
    """The points of a study; only the diffusion network is trained, and its weights are exported from a job."""

    def __init__(self, study: Study | None = None, unet_job: str = "") -> None:
        """Take the usual study by default; its diffusion weights are exported if missing or older than the job."""
        self.study, self._unet_job = (usual_study(), _UNET_JOB) if study is None else (study, unet_job)
        self.points = points(self.study)
        super().__init__({point.name: point.settings for point in self.points})
        self._jobs = Bench()
        if self._unet_job and self._jobs.is_trained(self._unet_job):
            self._export()

    def is_trained(self, name: str) -> bool:
        """Return whether the point does not use the diffusion network, or that is trained."""
        other = not self._unet_job or self.settings[name].weights != self.study.unet
        return other or self._jobs.is_trained(self._unet_job)

    def train(self, name: str) -> None:
        """Train the diffusion network, and write its weights."""
        self._jobs.train(self._unet_job)
        self._export()

    def _export(self) -> None:
        path = self.study.unet
        exported = sorted(path.parent.glob(f"{path.stem}*.safetensors"))
        trained_s = (FITS / f"{self._unet_job}.safetensors").stat().st_mtime
        if not exported or min(file.stat().st_mtime for file in exported) < trained_s:
            export_weights(self._jobs.trained(self._unet_job), load_scenario("paris-7"), path)


def bits_rows(bench: BitsBench) -> list[Row]:
    """Make a row for each point."""
    base = bench.study.base
    study = {"scenario": load_scenario(base.scenario).name, "bs": base.bs, "snapshots": base.snapshots,
             "raw_bits": raw_bits(load_scenario(base.scenario), base.bs)}  # fmt: skip
    rows = []
    for point in bench.points:
        settings = point.settings
        own = {"bits": settings.bits or 16, "delay_ms": point.delay_ms, "options": dict(settings.options)}
        rows.append(Row(point.name, measured, (point.name,), section=point.line, about=own | {"study": study}))
    return rows


def raw_bits(scenario: Scenario, stations: int) -> int:
    """Return the bits of all base stations' fingerprints in float32: magnitudes and phases of all pairs and taps."""
    _, pairs, taps = scenario.csi_shape
    return stations * 2 * pairs * taps * 32  # DiffLoc Eq. 4


def measured(bench: BitsBench, names: Sequence[str]) -> Result:
    """Run a point; return its error, coverage, latency and sizes."""
    result = bench.run(names[0])
    columns = ["error_2d_m", "rounds", "total_ns", *(f"true_{axis}_m" for axis in "xyz")]
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
        "error_2d_m": sample_statistics(fixes["error_2d_m"].to_numpy(), _walks(bench.settings[names[0]], fixes))
        if len(fixes)
        else None,
        "coverage_90": summary["coverage_90"],
        "latency_ms": {f"p{p}": float(np.percentile(total_ms, p)) for p in (50, 95)} if len(fixes) else None,
        "per_snapshot": _sizes(result, snapshots),
        "weights_digest": summary["weights_digest"],
    }


def _walks(settings: EmulateSettings, fixes: pa.Table) -> Cluster:
    """Return the number of the walk (N,) of each fix: of the test user who stood there."""
    _, paths = load_test_set(load_scenario(settings.scenario), settings)
    place = cKDTree(paths.position).query(true_positions(fixes))[1]
    walk: Cluster = (paths.user if len(paths.user) else np.arange(len(paths)))[place].astype(np.int64)
    return walk


def _sizes(result: RunResult, snapshots: int) -> Result:
    """Return sizes per snapshot: payload up and down, side information, headers [bit]; bytes on the wire [B]."""
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


LEGEND = """\
(a): networks at the base stations, a state and its answers for each step, rule `gauss`. (b): embeddings are sent once,
networks run at the cloud, two steps, rule `gauss`. (c): each base station sends a mixture for its own posterior, rule
`exact`. CT: consistency network; UNet: diffusion network, DDIM. ECC: the scheme `ecc` on the same users and sites, on
its own paper's arrays and band (scenario `paris-7-ecc`). Its training has every position moved by up to 0.75 m each
time that it comes up, with paths to match; DiffLoc's has each position as it was traced: they do not learn from equal
data."""

TIMING = """\
`--interval {interval_ms:g} --deadline {deadline_ms:g} --batch 1`, `--delay` as it stands, no `--rate`, in process: on
the simulated clock computing and serialising take no time and snapshots do not wait for each other, so that latency is
link delay alone. A delay d each way makes it d + 2 d R with R steps, and d with one message. A frame that comes at the
deadline is late; the fix is then what the last whole step gave (`conclude`), and before the first there is none."""


def bits_page(name: str, records: Sequence[Record]) -> str:
    """Return the page."""
    study = records[0]["about"]["study"]
    at_rest, delayed = _parted(records)
    lines = [
        f"![error against bits and delay]({name}.png)",
        "",
        f"{study['snapshots']} test positions of `{study['scenario']}`, {study['bs']} base stations, every point an "
        "in-process emulation with the real payloads. Errors are horizontal, in metres, with 95 % bootstrap intervals "
        "of the mean.",
        "",
        *LEGEND.splitlines(),
        "",
        "## Error against bits",
        "",
        *_bits_table(at_rest, study["raw_bits"]),
        "## Error against delay",
        "",
        *TIMING.format(interval_ms=INTERVAL_MS, deadline_ms=DEADLINE_MS).splitlines(),
        "",
        *_by_delay(delayed, "mean error [m] (95 %)", _error),
        *_by_delay(delayed, "fixes", _fixes),
        *_by_delay(delayed, "latency of a fix, p50 [ms]", _latency),
    ]
    weights = sorted({record["result"]["weights_digest"] for record in records if record["result"]})
    return markdown.page(name, [*lines, *([f"Weights {', '.join(weights)}.", ""] if weights else [])], records)


def _parted(records: Sequence[Record]) -> tuple[list[Record], list[Record]]:
    """Return the points of error against bits, and those of error against delay."""
    at_rest = [one for one in records if one["about"]["delay_ms"] is None]
    return at_rest, [one for one in records if one["about"]["delay_ms"] is not None]


def _bits_table(points: Sequence[Record], raw: int) -> list[str]:
    head = ["", "B", "payload up [bit/fix]", "down", "both", "side [bit/fix]", "headers [bit/fix]",
            "TCP stream [B/fix]", "Ethernet [B/fix]", "mean error [m] (95 %)", "median", "p90",
            "in 90 % region", "fixes"]  # fmt: skip
    rows = []
    for one in points:
        found = one["result"]
        if found is None:
            rows.append([one["section"], _payload(one), *["–"] * 7, NOT_TRAINED, *["–"] * 4])
            continue
        size, error, covered = found["per_snapshot"], found["error_2d_m"], found["coverage_90"]
        rows.append(
            [
                one["section"],
                _payload(one),
                _whole(size["payload_up_bits"]),
                _whole(size["payload_down_bits"]),
                _whole(payload_bits(one)),
                _whole(size["side_bits"]),
                _whole(size["header_bits"]),
                _whole(size["stream_bytes"]),
                _whole(size["ethernet_bytes"]),
                with_interval(error) if error else "no fix",
                metres(error["median"]) if error else "–",
                metres(error["p90"]) if error else "–",
                "–" if covered is None else f"{100 * covered:.1f} %",
                f"{found['fixes']} of {found['snapshots']}",
            ]
        )
    return [
        *table(head, rows),
        "Payload, side information and headers are counted in the ledger, all links and both directions; headers are "
        "ours with CRC and padding, and ZMTP's. TCP stream: counted, all of that; Ethernet: modelled, with TCP/IP. The "
        f"raw fingerprints in float32 would take {_whole(raw)} bit of payload a fix.",
        "",
    ]


def payload_bits(point: Record) -> float:
    """Return the payload of a fix in both directions [bit]."""
    size = point["result"]["per_snapshot"]
    return float(size["payload_up_bits"] + size["payload_down_bits"])


def _by_delay(points: Sequence[Record], what: str, cell: Callable[[Record], str]) -> list[str]:
    delays = list(dict.fromkeys(one["about"]["delay_ms"] for one in points))
    lines = dict.fromkeys(one["section"] for one in points)
    at = {(one["section"], one["about"]["delay_ms"]): one for one in points}
    rows = []
    for line in lines:
        there = [at[line, delay] for delay in delays]
        rows.append([line, *(cell(one["result"]) if one["result"] else NOT_TRAINED for one in there)])
    return table([f"{what}, by delay each way", *(f"{delay} ms" for delay in delays)], rows)


def _error(found: Record) -> str:
    if not found["error_2d_m"]:
        return "no fix"
    return with_interval(found["error_2d_m"]) + (" *cut*" if found["cut"] else "")


def _fixes(found: Record) -> str:
    made = f"{found['fixes']}"
    if not found["cut"]:
        return made
    return f"{made}, of them {found['cut']} cut after {found['steps_p50']:g} step{'s' * (found['steps_p50'] != 1)}"


def _latency(found: Record) -> str:
    return f"{found['latency_ms']['p50']:g}" if found["latency_ms"] else "–"


def _payload(point: Record) -> str:
    return "16 (lossless)" if point["about"]["bits"] == 16 else str(point["about"]["bits"])


def _whole(value: float) -> str:
    return f"{round(value):,}".replace(",", " ")


def bits_draw(path: Path, records: Sequence[Record]) -> None:
    """Draw the study; a line's colour is the same on both sides."""
    done = [one for one in records if one["result"] and one["result"]["error_2d_m"]]
    at_rest, delayed = _parted(done)
    names = list(dict.fromkeys(one["section"] for one in records))
    colours = {name: COLOURS[number % len(COLOURS)] for number, name in enumerate(names)}
    figure, (left, right) = new_axes(2)
    _draw_lines(left, at_rest, colours, payload_bits)
    for name, colour in colours.items():
        line = sorted((one for one in at_rest if one["section"] == name), key=payload_bits)
        for one in line[:: max(1, len(line) - 1)]:  # both ends of a line
            at = (payload_bits(one), one["result"]["error_2d_m"]["mean"])
            text = f"B={one['about']['bits']}"
            left.annotate(text, at, (5, 5), textcoords="offset points", fontsize=7.5, color=colour)
    raw = records[0]["about"]["study"]["raw_bits"]
    left.axvline(raw, color="#888888", linestyle="--", linewidth=1.2, label="raw fingerprints, float32")
    left.set_xscale("log")
    left.set_xlabel("payload of a fix, all links, both directions [bit]")
    delays = list(dict.fromkeys(one["about"]["delay_ms"] for one in _parted(records)[1]))

    def place(record: Record) -> float:
        return float(delays.index(record["about"]["delay_ms"]))

    _draw_lines(right, delayed, colours, place)
    cut = [one for one in delayed if one["result"]["cut"]]
    right.scatter([place(one) for one in cut], [one["result"]["error_2d_m"]["mean"] for one in cut], s=70, marker="x",
                  c=[colours[one["section"]] for one in cut], zorder=3)  # fmt: skip
    right.set_xticks(range(len(delays)), [str(delay) for delay in delays])
    right.set_xlabel(f"delay of every link, each way [ms]; deadline {DEADLINE_MS:g} ms; ×: rounds were cut")
    for axes in (left, right):
        axes.set_ylabel("mean horizontal error [m], 95 % interval")
    means = [one["result"]["error_2d_m"]["mean"] for one in done]
    save_figure(figure, path, logarithmic=bool(means) and max(means) > 8 * min(means))


def _draw_lines(
    axes: Axes, records: Sequence[Record], colours: Mapping[str, str], at: Callable[[Record], float]
) -> None:
    for name, colour in colours.items():
        points = [(at(one), one["result"]["error_2d_m"]) for one in records if one["section"] == name]
        error_bars(axes, points, name, colour, marker=_MARKERS[name[:3]])

"""The page of ``diffloc-bits`` in Markdown; every figure is one of a point's record (`sim.reproduce.diffloc.bits`)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from sim.reproduce.markdown import NOT_TRAINED, header, metres, table, with_interval

Record = dict[str, Any]

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


def page(name: str, study: Record) -> str:
    """Return the page."""
    lines = header(name)
    lines += [f"![error against bits and delay]({name}.png)", ""]
    lines += [
        f"{study['snapshots']} test positions of `{study['scenario']}`, {study['bs']} base stations, every point an "
        "in-process emulation with the real payloads. Errors are horizontal, in metres, with 95 % bootstrap intervals "
        "of the mean.",
        "",
        *LEGEND.splitlines(),
        "",
    ]
    at_rest = [one for one in study["points"] if one["delay_ms"] is None]
    delayed = [one for one in study["points"] if one["delay_ms"] is not None]
    lines += ["## Error against bits", "", *_bits(at_rest, study), "## Error against delay", ""]
    lines += [*TIMING.format(**study).splitlines(), ""]
    lines += [*_by_delay(delayed, "mean error [m] (95 %)", _error), *_by_delay(delayed, "fixes", _fixes)]
    lines += _by_delay(delayed, "latency of a fix, p50 [ms]", _latency)
    return "\n".join([*lines, *_provenance(study["points"])]) + "\n"


def _bits(points: Sequence[Record], study: Record) -> list[str]:
    """Return the table of error against bits."""
    head = ["", "B", "payload up [bit/fix]", "down", "both", "side [bit/fix]", "headers [bit/fix]",
            "TCP stream [B/fix]", "Ethernet [B/fix]", "mean error [m] (95 %)", "median", "p90",
            "in 90 % region", "fixes"]  # fmt: skip
    rows = []
    for one in points:
        found = one["result"]
        if found is None:
            rows.append([one["line"], _payload(one), *["–"] * 7, _missing(one), *["–"] * 4])
            continue
        size, error, covered = found["per_snapshot"], found["error_2d_m"], found["coverage_90"]
        rows.append(
            [
                one["line"],
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
    raw = _whole(study["raw_fingerprint_bits"])
    return [
        *table(head, rows),
        "Payload, side information and headers are counted in the ledger, all links and both directions; headers are "
        "ours with CRC and padding, and ZMTP's. TCP stream: counted, all of that; Ethernet: modelled, with TCP/IP. The "
        f"raw fingerprints in float32 would take {raw} bit of payload a fix.",
        "",
    ]


def payload_bits(point: Record) -> float:
    """Payload of a fix in both directions [bit]."""
    size = point["result"]["per_snapshot"]
    return float(size["payload_up_bits"] + size["payload_down_bits"])


def _by_delay(points: Sequence[Record], what: str, cell: Callable[[Record], str]) -> list[str]:
    delays = list(dict.fromkeys(one["delay_ms"] for one in points))
    lines = dict.fromkeys(one["line"] for one in points)
    at = {(one["line"], one["delay_ms"]): one for one in points}
    rows = []
    for line in lines:
        there = [at[line, delay] for delay in delays]
        rows.append([line, *(cell(one["result"]) if one["result"] else _missing(one) for one in there)])
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


def _missing(point: Record) -> str:
    return NOT_TRAINED if point["key"] is None else "not run"


def _payload(point: Record) -> str:
    return "16 (lossless)" if point["bits"] == 16 else str(point["bits"])


def _whole(value: float) -> str:
    return f"{round(value):,}".replace(",", " ")


def _provenance(points: Sequence[Record]) -> list[str]:
    results = [one["result"] for one in points if one["result"] is not None]
    if not results:
        return []
    commits = sorted({str(found["commit"])[:12] for found in results})
    dates = sorted({found["date"] for found in results})
    weights = sorted({found["weights_digest"] for found in results})
    return [f"Commit {', '.join(commits)}; {' to '.join(dict.fromkeys((dates[0], dates[-1])))}; "
            f"weights {', '.join(weights)}."]  # fmt: skip

"""Output of a run's summary: bits, bytes, errors, latency, links and fates, each with its unit."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from fronthaul.link.link_config import IMPAIRMENTS
from sim.terminal import count, metres, milliseconds, new_table, number, show_table

COUNTED = {
    "payload": "payload",
    "side": "side information",
    "header": "header and CRC",
    "padding": "padding",
    "zmtp": "ZMTP frame headers",
    "curve": "CURVE encryption",
}
"""Counted parts of frames, in the order shown: key in ``summary["bytes"]`` → name."""

CONNECTION = {"handshake": "handshake", "heartbeat": "heartbeat", "control": "control messages"}
"""Overheads of each connection: key in ``summary["bytes"]`` → name."""

MODELLED = {
    "tcpip": "frames over TCP/IP",
    "ethernet": "frames over TCP/IP and Ethernet",
    "ecpri_ethernet": "frames as eCPRI over Ethernet",
    "ecpri_ethernet_mtu_9000": "… with an MTU of 9000 B",
}
"""Modelled sizes: key in ``summary["bytes_modelled"]`` → name."""

CONTROLS = {
    "prior": "prior: mean training position",
    "prior_draw": "prior: random training position",
    "wknn": "WKNN on unquantised CSI",
    "linear": "local linear regression on unquantised CSI",
    "bound": "error bound",
}
"""Controls: key in ``summary["controls"]`` → name; others are shown by their key."""

STAGES = {
    "start": "start after time zero",
    "estimate": "estimate (BS)",
    "encode": "encode (BS)",
    "pack": "pack (BS)",
    "fronthaul": "fronthaul",
    "wait": "wait at the collector",
    "fuse": "fuse (cloud)",
    "total": "total: time zero to fix",
}
"""Stages, in the order of the pipeline: key in ``summary["latency_ms"]`` → name."""


def show_summary(console: Console, summary: Mapping[str, Any], folder: Path) -> None:
    """Print the summary of the run in `folder`."""
    encrypted = ", links encrypted (CURVE)" if summary.get("encrypted") else ""
    console.print(
        f"\n[bold]{escape(str(summary['scenario']))} · {escape(str(summary['label']))}[/bold]   "
        f"{stations(summary)}, {summary['snapshots']} snapshots, seed {summary['seed']}{encrypted}"
    )
    answers = summary.get("payload_bits_per_answer")
    first = summary["payload_bits_per_report"]
    parts = [
        f"payload [bold]{number(first)} bit[/bold] per BS and fix, "
        f"[bold]{100 * summary['payload_ratio']:.2f} %[/bold] of lossless CSI"
    ] * bool(first or not answers)
    parts += [f"{number(answers)} bit per answer of a later round"] * bool(answers)
    console.print("; ".join(parts) if first or not answers else f"payload [bold]{parts[0]}[/bold], none in round 0")
    for name, found in summary.get("payload_bits", {}).items():
        if found:
            console.print(
                f"lengths of {name} payloads: {number(found['min'])} to {number(found['max'])} bit, "
                f"median {number(found['p50'])}, 95 % up to {number(found['p95'])}"
            )
    show_table(console, bytes_table(summary))
    if summary.get("bytes_kernel"):
        console.print(kernel_line(summary["bytes_kernel"]), soft_wrap=True)
    for table in (error_table(summary), latency_table(summary), clock_table(summary), links_table(summary)):
        if table.row_count:
            show_table(console, table)
    show_table(console, fates_table(summary))
    for line in event_lines(summary):
        console.print(line, soft_wrap=True)
    if summary.get("fixes_per_s") is not None:
        fixes, positions = summary["fixes"], summary.get("positions", summary["fixes"])
        repeated = f"{number(positions)} positions in " if positions < fixes else ""
        made = f"{number(fixes)} fixes of {repeated}{number(summary['snapshots'])} snapshots, "
        console.print(f"{made}{number(summary['fixes_per_s'])} fixes/s")
    for note in summary.get("notes") or ():
        console.print(f"[yellow]note:[/yellow] {escape(note)}", soft_wrap=True)
    console.print(f"run folder: [bold]{escape(str(folder))}[/bold]", soft_wrap=True)


def stations(summary: Mapping[str, Any]) -> str:
    """Return the number of base stations that took part, and the layout, as text."""
    told = f"{summary['bs']} BS"
    if summary.get("random_subset"):
        told = f"random subset of {summary['bs']} of {summary['bs_present']} BS in each snapshot"
    layout = summary.get("layout")
    return told if layout is None else f"{told}, layout {layout}"


def kernel_line(counted: Mapping[str, Any]) -> str:
    """Return a line on whether the kernels' counts of the TCP streams match the prediction."""
    least, most = counted["predicted_least"], counted["predicted_most"]
    predicted = f"{number(least)} B" if least == most else f"{number(least)} to {number(most)} B"
    if counted["exact"]:
        return f"TCP streams: {predicted} predicted, and counted by the kernels at both ends"
    ends = [
        f"{number(counted[key])} B counted by the {name}"
        if counted[key] is not None
        else f"no complete count by the {name}"
        for key, name in (("sent", "senders' kernels"), ("received", "receivers' kernels"))
    ]
    cut = f"; {number(counted['cut_connections'])} connections were cut" if counted["cut_connections"] else ""
    return f"TCP streams: {predicted} predicted, {', '.join(ends)}{cut}"


MOST_EXCLUDED = 8
"""Most base stations that have a line of their own on snapshots for which they could not be used."""


def event_lines(summary: Mapping[str, Any]) -> list[str]:
    """Return lines on arrivals, strays, refusals, undetermined snapshots, excluded BSs, restarts and missing BSs."""
    lines = []
    arrivals: Mapping[str, int] = summary.get("arrivals") or {}
    if sum(arrivals.values()):
        early, on_time, late = (number(arrivals[key]) for key in ("early", "on_time", "late"))
        lines.append(f"receive window, reports of round 0: {early} early, {on_time} on time, {late} late")
    if summary.get("strays"):
        lines.append(f"{number(summary['strays'])} frames arrived that are in no journal")
    if summary.get("refused_connections"):
        lines.append(f"[yellow]{number(summary['refused_connections'])} connections were refused[/yellow]")
    if summary.get("refused_registrations"):
        lines.append(f"[yellow]{number(summary['refused_registrations'])} registrations were refused[/yellow]")
    if summary.get("undetermined"):
        lines.append(f"[yellow]{number(summary['undetermined'])} snapshots have no finite fix[/yellow]")
    for note, times in (summary.get("fix_notes") or {}).items():
        lines.append(f"{number(times)} fixes are marked {note!r} by the scheme")
    excluded: Mapping[str, int] = summary.get("excluded") or {}
    for bs, times in excluded.items() if len(excluded) <= MOST_EXCLUDED else ():
        lines.append(
            f"[yellow]BS {bs} could not be used for {number(times)} snapshots[/yellow]; events.parquet says why"
        )
    if len(excluded) > MOST_EXCLUDED:
        least, most = (number(times) for times in (min(excluded.values()), max(excluded.values())))
        lines.append(
            f"[yellow]{len(excluded)} base stations could not be used for {least} to {most} snapshots each[/yellow]; "
            "events.parquet says which and why"
        )
    for restart in summary.get("restarts") or ():
        back = restart["t_back_ns"]
        after = "not back at the end" if back is None else f"back after {(back - restart['t_died_ns']) / 1e9:.2f} s"
        cause = " with its node" if restart.get("node_lost") else ""
        lines.append(f"[yellow]restart:[/yellow] {escape(str(restart['name']))} died{cause}, {after}")
    if summary.get("missing_bs"):
        lines.append(f"[yellow]not connected at the end:[/yellow] BS {', '.join(map(str, summary['missing_bs']))}")
    return lines


def clock_table(summary: Mapping[str, Any]) -> Table:
    """Return the table of clock offsets of base stations on other hosts."""
    table = new_table("cloud's clock ahead of", "epoch", "offset [ms]", "uncertainty [ms]", "drift [ppm]", "samples")
    for row in summary.get("clock_offsets") or ():
        drift = row["drift_ppm"]
        table.add_row(
            f"BS {row['bs']}", number(row["epoch"]), milliseconds(row["offset_ns"] / 1e6),
            milliseconds(row["uncertainty_ns"] / 1e6), "–" if drift is None else f"{drift:.2f}",
            number(row["samples"]),
        )  # fmt: skip
    return table


LINK_COLUMNS = {key: it.report for key, it in IMPAIRMENTS.items() if it.report is not None}
"""Key of ``within`` → how the impairment is reported."""

MOST_LINKS = 24
"""Most rows in the table of links; if there are more links, those that missed a requested value come first."""


def links_table(summary: Mapping[str, Any]) -> Table:
    """Return the table of requested and achieved impairments, with a column for each that any link requests."""
    links = [link for link in summary.get("links") or () if link.get("requested")]
    asked = [name for name, it in LINK_COLUMNS.items() if any(link["requested"].get(it.requested) for link in links)]
    table = new_table("link: requested → achieved", *(LINK_COLUMNS[name].heading for name in asked))
    if not asked:
        return table
    shown = sorted(links, key=lambda link: False not in link["within"].values())[:MOST_LINKS]
    for link in links if len(links) <= MOST_LINKS else shown:
        table.add_row(f"BS {link['bs']} {link['direction']}", *(link_cell(link, name) for name in asked))
    if len(links) > MOST_LINKS:
        table.add_row(f"and {len(links) - MOST_LINKS} more", *[""] * len(asked))
    return table


def link_cell(link: Mapping[str, Any], name: str) -> str:
    """Return "requested → achieved", with a mark if the result can be judged."""
    it = LINK_COLUMNS[name]
    requested, achieved = link["requested"].get(it.requested), link["achieved"].get(it.achieved)
    if not requested:
        return ""
    reached = "–" if achieved is None else number(achieved) if it.counts else f"{it.scale * achieved:.3g}"
    mark = {True: " ✓", False: " [red]✗[/red]", None: ""}[link["within"].get(name)]
    return f"{it.scale * requested:.3g} → {reached}{mark}"


def bytes_table(summary: Mapping[str, Any]) -> Table:
    """Return the table of bytes by name, counted and modelled, per frame that was not dropped and in total."""
    table = new_table("bytes", "", "per frame", "total")
    totals: Mapping[str, Any] = summary["bytes"]
    frames = sum(seen for fate, seen in summary["frames"].items() if fate != "dropped")
    for key, name in COUNTED.items():
        total = totals.get(key) or 0
        table.add_row(name, "counted", per_frame(key, total, frames), f"{number(total)} B")
    table.add_section()
    for key, name in CONNECTION.items():
        table.add_row(name, "counted, per connection", "", f"{number(totals.get(key) or 0)} B")
    table.add_section()
    for key, name in MODELLED.items():
        total = (summary.get("bytes_modelled") or {}).get(key)
        if total is not None:
            table.add_row(name, "modelled", per_frame(key, total, frames), f"{number(total)} B")
    return table


def per_frame(key: str, total: float, frames: int) -> str:
    """Format a total [B] per frame; payload, side information and padding are given in bits."""
    if not frames:
        return "–"
    if key in ("payload", "side", "padding"):
        return f"{number(8 * total / frames)} bit"
    return f"{number(total / frames)} B"


def error_table(summary: Mapping[str, Any]) -> Table:
    """Return the table of position errors and, below them, the controls."""
    table = new_table("position error [m]", "mean", "95 % interval", "median", "p90")
    for key, name in (("error_3d_m", "3D"), ("error_2d_m", "2D"), ("error_vertical_m", "vertical")):
        if summary.get(key):
            table.add_row(*error_row(name, summary[key]))
    track: Mapping[str, Any] = summary.get("track") or {}
    for key, name in (("filtered", "filtered along walks"), ("smoothed", "smoothed along walks")):
        if track.get(key):
            table.add_row(*error_row(f"{name}, 3D", track[key]))
        if (track.get("bridged") or {}).get(key):
            table.add_row(
                *error_row(f"… where a fix failed, {number(track['bridged']['snapshots'])}", track["bridged"][key])
            )
    if summary.get("coverage_90") is not None:
        table.add_row("90 % region covers", f"{100 * summary['coverage_90']:.1f} %")
    table.add_section()
    controls = summary.get("controls") or {key: summary.get(key) for key in CONTROLS}
    for key, value in controls.items():
        if value is not None:
            entry = value if isinstance(value, Mapping) else {"mean": value}
            entry = entry.get("error_3d_m", entry)
            table.add_row(*error_row(f"{CONTROLS.get(key, key)}, 3D", entry))
    return table


def error_row(name: str, entry: Mapping[str, Any]) -> list[str]:
    """Return one row of the error table."""
    interval = entry.get("ci95_of_mean")
    between = f"{metres(interval[0])} … {metres(interval[1])}" if interval else ""
    return [name, metres(entry.get("mean")), between, metres(entry.get("median")), metres(entry.get("p90"))]


def latency_table(summary: Mapping[str, Any]) -> Table:
    """Return the table of latency by stage, along the path of the last report to arrive."""
    clock = ", simulated clock" if summary.get("clock") == "simulated" else ""
    table = new_table(f"latency [ms{clock}]", "p50", "p95", "p99")
    latency: Mapping[str, Any] = summary.get("latency_ms") or {}
    for key in [*(k for k in STAGES if k in latency), *(k for k in latency if k not in STAGES)]:
        if latency[key]:
            table.add_row(STAGES.get(key, key), *(milliseconds(latency[key].get(p)) for p in ("p50", "p95", "p99")))
    return table


def fates_table(summary: Mapping[str, Any]) -> Table:
    """Return the table of fates of frames and reports."""
    table = new_table("fate", "frames", "reports")
    frames, reports = summary["frames"], summary["reports"]
    for fate in [*frames, *(f for f in reports if f not in frames)]:
        table.add_row(fate, count(frames.get(fate)), count(reports.get(fate)))
    return table

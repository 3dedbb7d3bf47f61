"""What runs, links and frames look like in a terminal: bits, bytes, errors, latency and fates, each with its unit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

if TYPE_CHECKING:
    from sim.run.inspection import FrameView, LinkTotals

COUNTED = {
    "payload": "payload",
    "side": "side information",
    "header": "header and CRC",
    "padding": "padding",
    "zmtp": "ZMTP frame headers",
    "curve": "CURVE encryption",
}
"""Overheads of each report, in the order in which they are shown: key in ``summary["bytes"]`` → name."""

CONNECTION = {"handshake": "ZMTP handshake", "heartbeat": "heartbeat", "control": "control messages"}
"""Overheads of each connection."""

MODELLED = {
    "tcpip": "frames over TCP/IP",
    "ethernet": "frames over TCP/IP and Ethernet",
    "ecpri_ethernet": "frames as eCPRI over Ethernet",
}
"""Keys of ``summary["bytes_modelled"]``."""

CONTROLS = {
    "prior": "prior: mean training position",
    "prior_draw": "prior: random training position",
    "wknn": "WKNN on unquantised CSI",
    "bound": "error bound",
}
"""Keys of ``summary["controls"]`` with known names; others are shown by their key."""

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
"""Keys of ``summary["latency_ms"]`` in the order of the pipeline."""


class ProgressBar:
    """A progress bar with the estimated time left, on standard error; it appears with the first `update`."""

    def __init__(self) -> None:
        columns = (
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
            TextColumn("ETA"), TimeRemainingColumn(), TextColumn("{task.fields[note]}"),
        )  # fmt: skip
        self._console = Console(stderr=True)
        self._progress = Progress(*columns, console=self._console, speed_estimate_period=600)
        self._description = ""

    def __enter__(self) -> ProgressBar:
        """Return the bar itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Leave the bar as it is."""
        if self._progress.tasks:
            self._progress.stop()

    def update(self, description: str, done: float, total: float, *, note: str = "", restart: bool = False) -> None:
        """Show `done` of `total`.

        A new description, or `restart`, begins a new estimate of the time left: what went before took another
        time a step, such as starting processes or finding results on disk.
        """
        if not self._progress.tasks:
            self._progress.add_task(description, total=total, note=note)
            self._progress.start()
        task = self._progress.tasks[0].id
        if restart or description != self._description:
            self._progress.reset(task, total=total)
        self._description = description
        self._progress.update(task, description=description, completed=done, total=total, note=note)

    def say(self, line: str) -> None:
        """Print a line above the bar."""
        self._console.print(line, highlight=False)


def show_summary(console: Console, summary: Mapping[str, Any], folder: Path) -> None:
    """Print the summary of the run in `folder`."""
    bits = "lossless" if summary["bits"] is None else f"B = {summary['bits']} bit"
    console.print(
        f"\n[bold]{escape(str(summary['scenario']))} · {escape(str(summary['scheme']))} · {bits}[/bold]   "
        f"{summary['bs']} BS, {summary['snapshots']} snapshots, seed {summary['seed']}"
    )
    console.print(
        f"payload [bold]{number(summary['payload_bits_per_report'])} bit[/bold] per BS and fix, "
        f"[bold]{100 * summary['payload_ratio']:.2f} %[/bold] of lossless CSI"
    )
    for table in (bytes_table(summary), error_table(summary), latency_table(summary), fates_table(summary)):
        if table.row_count:
            console.print(table)
    if summary.get("fixes_per_s") is not None:
        console.print(f"{number(summary['fixes_per_s'])} fixes/s")
    for note in summary.get("notes") or ():
        console.print(f"[yellow]note:[/yellow] {escape(note)}", soft_wrap=True)
    console.print(f"run folder: [bold]{escape(str(folder))}[/bold]", soft_wrap=True)


def bytes_table(summary: Mapping[str, Any]) -> Table:
    """Return bytes by name, counted and modelled apart, per report and in total."""
    table = new_table("bytes", "", "per report", "total")
    totals: Mapping[str, Any] = summary["bytes"]
    reports = sum(summary["frames"].values())
    for key, name in COUNTED.items():
        total = totals.get(key) or 0
        table.add_row(name, "counted", per_report(key, total, reports), f"{number(total)} B")
    table.add_section()
    for key, name in CONNECTION.items():
        table.add_row(name, "counted, per connection", "", f"{number(totals.get(key) or 0)} B")
    table.add_section()
    for key, name in MODELLED.items():
        total = (summary.get("bytes_modelled") or {}).get(key)
        if total is not None:
            table.add_row(name, "modelled", per_report(key, total, reports), f"{number(total)} B")
    return table


def per_report(key: str, total: float, reports: int) -> str:
    """Return a total [B] per report: in bits where it is no whole number of bytes by nature."""
    if not reports:
        return "–"
    if key in ("payload", "side", "padding"):
        return f"{number(8 * total / reports)} bit"
    return f"{number(total / reports)} B"


def error_table(summary: Mapping[str, Any]) -> Table:
    """Return position errors and, below them, the controls."""
    table = new_table("position error [m]", "mean", "95 % interval", "median", "p90")
    for key, name in (("error_3d_m", "3D"), ("error_2d_m", "2D"), ("error_vertical_m", "vertical")):
        if summary.get(key):
            table.add_row(*error_row(name, summary[key]))
    table.add_section()
    controls = summary.get("controls") or {key: summary.get(key) for key in CONTROLS}
    for key, value in controls.items():
        if value is not None:
            entry = value if isinstance(value, Mapping) else {"mean": value}
            entry = entry.get("error_3d_m", entry)
            table.add_row(*error_row(f"{CONTROLS.get(key, key)}, 3D", entry))
    return table


def error_row(name: str, entry: Mapping[str, Any]) -> list[str]:
    """Return one line of the error table."""
    interval = entry.get("ci95_of_mean")
    between = f"{metres(interval[0])} … {metres(interval[1])}" if interval else ""
    return [name, metres(entry.get("mean")), between, metres(entry.get("median")), metres(entry.get("p90"))]


def latency_table(summary: Mapping[str, Any]) -> Table:
    """Return latency by stage, along the path of the report that came last."""
    clock = ", simulated clock" if summary.get("clock") == "simulated" else ""
    table = new_table(f"latency [ms{clock}]", "p50", "p95", "p99")
    latency: Mapping[str, Any] = summary.get("latency_ms") or {}
    for key in [*(k for k in STAGES if k in latency), *(k for k in latency if k not in STAGES)]:
        if latency[key]:
            table.add_row(STAGES.get(key, key), *(milliseconds(latency[key].get(p)) for p in ("p50", "p95", "p99")))
    return table


def fates_table(summary: Mapping[str, Any]) -> Table:
    """Return what became of frames and of reports."""
    table = new_table("fate", "frames", "reports")
    frames, reports = summary["frames"], summary["reports"]
    for fate in [*frames, *(f for f in reports if f not in frames)]:
        table.add_row(fate, count(frames.get(fate)), count(reports.get(fate)))
    return table


def show_links(console: Console, links: Sequence[LinkTotals]) -> None:
    """Print totals of each link: bytes by name, then fates."""
    counted = ("payload [bit]", "side [bit]", "header [B]", "padding [bit]", "ZMTP [B]", "CURVE [B]", "stream [B]")
    size = new_table("link", *(name.replace(" ", "\n") for name in counted), "Ethernet\n[B, modelled]")
    for link in links:
        size.add_row(
            f"BS {link.bs}", number(link.payload_bits), number(link.side_bits), number(link.header_bytes),
            number(link.padding_bits), number(link.zmtp_bytes), number(link.curve_bytes), number(link.stream_bytes),
            number(link.ethernet_bytes),
        )  # fmt: skip
    console.print(size)
    if not links:
        return
    frames = new_table("link", "frames", *links[0].frames, "not\njournaled")
    reports = new_table("link", "reports", *links[0].reports)
    for link in links:
        frames.add_row(f"BS {link.bs}", *map(number, (sum(link.frames.values()), *link.frames.values(), link.strays)))
        reports.add_row(f"BS {link.bs}", *map(number, (sum(link.reports.values()), *link.reports.values())))
    console.print(frames, reports)


def show_frame(console: Console, view: FrameView) -> None:
    """Print one frame: header fields, bytes by part, side values, indices."""
    console.print(f"[bold]link {view.bs}, frame {view.seq}[/bold], {view.direction}")
    fields = new_table("field", "value")
    received = "never" if view.t_received_ns is None else f"{number((view.t_received_ns - view.t_sent_ns) / 1e6)} ms"
    for name, value in {
        "version": view.version, "base station": view.bs, "epoch": view.epoch, "snapshot": view.snapshot,
        "round": view.round, "sequence number": view.seq, "side information": f"{len(view.side)} B",
        "payload": f"{number(view.cost.payload_bits)} bit", "padding": f"{view.cost.padding_bits} bit",
        "header and CRC": f"{view.cost.header_bytes} B", "ZMTP frame header": f"{view.cost.zmtp_bytes} B",
        "CURVE": f"{view.cost.curve_bytes} B", "on the stream": f"{number(view.cost.stream_bytes)} B",
        "CRC-32": f"{view.crc32:08x}", "sent": f"{view.t_sent_ns} ns", "received after": received,
        "fate of the frame": view.frame_fate + (f" ({view.reason})" if view.reason else ""),
        "fate of the report": view.report_fate or "unknown",
    }.items():  # fmt: skip
        fields.add_row(name, str(value))
    console.print(fields)
    crc_at = len(view.data) - 4
    payload_at = crc_at - (view.cost.payload_bits + view.cost.padding_bits) // 8
    side_at = payload_at - len(view.side)
    for name, begin, end in (
        ("header", 0, side_at), ("side information", side_at, payload_at), ("payload", payload_at, crc_at),
        ("CRC-32", crc_at, len(view.data)),
    ):  # fmt: skip
        if begin < end:
            console.print(f"\n[bold]{name}[/bold], bytes {begin} to {end - 1}")
            console.print(hex_dump(view.data[begin:end], begin), soft_wrap=True)
    if view.side_values:
        console.print(f"\n[bold]side values[/bold], float32\n  {'  '.join(f'{x:.9g}' for x in view.side_values)}")
    console.print(f"\n[bold]indices[/bold], {len(view.index)} of {view.bits} bit, offset binary")
    console.print(index_rows(view.index.tolist(), view.bits), soft_wrap=True)


def hex_dump(data: bytes, offset: int, row: int = 24) -> str:
    """Return lines of `row` bytes, each with its offset in the frame."""
    return "\n".join(
        f"  {offset + at:6d}  {data[at : at + row].hex(' ', 4)}" for at in range(0, len(data), row)
    )


def index_rows(index: Sequence[int], bits: int) -> str:
    """Return indices in aligned rows, each with the number of its first one."""
    width = len(str(2**bits - 1))
    row = max(1, {1: 32, 2: 32, 3: 24}.get(width, 8))
    return "\n".join(
        f"  {at:6d}  {' '.join(f'{value:{width}d}' for value in index[at : at + row])}"
        for at in range(0, len(index), row)
    )


def new_table(first: str, *others: str) -> Table:
    """Return an empty table: text on the left, numbers on the right."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column(escape(first), no_wrap=True)
    for heading in others:
        table.add_column(escape(heading), justify="right" if heading else "left", no_wrap=True)
    return table


def number(value: float | None) -> str:
    """Return a number with thousands apart: whole numbers whole, others to four significant digits."""
    if value is None:
        return "–"
    if float(value).is_integer():
        return f"{int(value):,}".replace(",", " ")
    return f"{value:,.1f}".replace(",", " ") if abs(value) >= 1000 else f"{value:.4g}"


def count(value: int | None) -> str:
    """Return a count, or nothing where there is none."""
    return "" if value is None else number(value)


def metres(value: float | None) -> str:
    """Return a length [m] in millimetres' resolution."""
    return "–" if value is None else f"{value:.3f}"


def milliseconds(value: float | None) -> str:
    """Return a time [ms] in microseconds' resolution."""
    return "–" if value is None else f"{value:.3f}"

"""Output of `inspect`: totals of links, a list of frames, a timeline, one frame down to its bits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console

from sim.terminal import new_table, number, show_table

if TYPE_CHECKING:
    from sim.inspect.frames import FrameView, LinkTotals, ReportView
    from sim.inspect.timeline import Second


def show_links(console: Console, links: Sequence[LinkTotals]) -> None:
    """Print the totals of each link: bits and bytes by name, then fates."""
    counted = ("payload [bit]", "side [bit]", "header [B]", "padding [bit]", "ZMTP [B]", "CURVE [B]", "stream [B]")
    size = new_table("link", *(name.replace(" ", "\n") for name in counted), "Ethernet\n[B, modelled]")
    for link in links:
        size.add_row(
            link_name(link), number(link.payload_bits), number(link.side_bits), number(link.header_bytes),
            number(link.padding_bits), number(link.zmtp_bytes), number(link.curve_bytes), number(link.stream_bytes),
            number(link.ethernet_bytes),
        )  # fmt: skip
    show_table(console, size)
    if not links:
        return
    frames = new_table("link", "frames", *links[0].frames, "not\njournaled")
    reports = new_table("link", "reports", *next((link.reports for link in links if link.reports), {}))
    for link in links:
        frames.add_row(link_name(link), *map(number, (sum(link.frames.values()), *link.frames.values(), link.strays)))
        if link.reports:
            reports.add_row(link_name(link), *map(number, (sum(link.reports.values()), *link.reports.values())))
    show_table(console, frames)
    if reports.row_count:
        show_table(console, reports)


def link_name(link: LinkTotals) -> str:
    """Return a link's name; only the downlink has its direction in it."""
    return f"BS {link.bs}" if link.direction == "up" else f"BS {link.bs} down"


def show_frames(console: Console, rows: Sequence[dict[str, Any]], t0_ns: int, count: int) -> None:
    """Print rows of ledgers, one line for each report of a frame; `count` is the number of all that were chosen."""
    table = new_table(
        "sent [ms]", "link", "", "epoch", "seq", "snapshot/\nround", "stream [B]", "frame", "report", "reason"
    )
    for column in (2, 7, 8, 9):
        table.columns[column].justify = "left"
    table.columns[0].justify = "right"
    bundled = any(row["part"] for row in rows)
    for row in rows:
        sent = row["t_sent_ns"] is not None
        table.add_row(
            f"{((row['t_sent_ns'] if sent else row['t_received_ns']) - t0_ns) / 1e6:.3f}" + ("" if sent else " (came)"),
            "unknown" if row["bs"] is None else f"BS {row['bs']}", row["direction"], _text(row["epoch"]),
            _text(row["seq"]) + (f".{row['part']}" if bundled and sent else ""),
            f"{row['snapshot']}/{row['round']}" if sent else "–", number(row_bytes(row)) if sent else "–",
            row["frame_fate"], row["report_fate"] or "–", row["reason"] or "",
        )  # fmt: skip
    show_table(console, table)
    if bundled:
        console.print("seq n.p is report p of frame n; bytes shared by a bundle are counted with its first report")
    if count > len(rows):
        console.print(f"{number(count - len(rows))} more; --most {count} shows all")


def row_bytes(row: dict[str, Any]) -> int:
    """Return the bytes on the TCP stream of one row, a report of a frame [B]."""
    bits: int = row["payload_bits"] + row["side_bits"] + row["padding_bits"]
    overhead: int = row["header_bytes"] + row["zmtp_bytes"] + row["curve_bytes"]
    return bits // 8 + overhead


def show_timeline(console: Console, seconds: Sequence[Second]) -> None:
    """Print one line per second: frames sent, payload, fates that occur, fixes."""
    from fronthaul.message.fates import FrameFate, ReportFate

    frame_fates = [fate for fate in FrameFate if any(second.frames[fate] for second in seconds)]
    report_fates = [fate for fate in ReportFate if any(second.reports[fate] for second in seconds)]
    table = new_table("[s]", "frames\nup", "\ndown", "payload\n[kbit]", *frame_fates, *report_fates, "fixes")
    table.columns[0].justify = "right"
    for second in seconds:
        fates = [second.frames[fate] for fate in frame_fates] + [second.reports[fate] for fate in report_fates]
        table.add_row(
            str(second.number), number(second.up), number(second.down), f"{second.payload_bits / 1e3:.1f}",
            *(number(seen) if seen else "" for seen in fates), number(second.fixes),
        )  # fmt: skip
    show_table(console, table)


def show_frame(console: Console, view: FrameView) -> None:
    """Print one frame: header fields, bytes by part, side values, indices of each report."""
    bundle = len(view.reports) > 1
    console.print(
        f"[bold]link {view.bs}, frame {view.seq}[/bold], {view.direction}"
        + (f", a bundle of {len(view.reports)} reports" if bundle else "")
    )
    fields = new_table("field", "value")
    fields.columns[1].justify = "left"
    received = "never" if view.t_received_ns is None else f"{number((view.t_received_ns - view.t_sent_ns) / 1e6)} ms"
    first = view.reports[0]
    shared = {
        "version": view.version, "base station": view.bs, "epoch": view.epoch, "sequence number": view.seq,
        **({"reports": len(view.reports)} if bundle else report_fields(first)),
        "side information": f"{len(first.side)} B" + each(bundle),
        "payload": lengths([report.payload.bits for report in view.reports]),
        "padding": lengths([report.payload.padding_bits for report in view.reports]),
        "header and CRC": f"{sum(cost.header_bytes for cost in view.costs)} B",
        "ZMTP frame header": f"{view.costs[0].zmtp_bytes} B", "CURVE": f"{view.costs[0].curve_bytes} B",
        "on the stream": f"{number(view.stream_bytes)} B", "CRC-32": f"{view.crc32:08x}",
        "sent": f"{view.t_sent_ns} ns",
        "on the wire after": f"{number((view.t_release_ns - view.t_sent_ns) / 1e6)} ms", "received after": received,
        "fate of the frame": view.frame_fate + (f" ({view.reason})" if view.reason else ""),
        **({} if bundle else {"fate of the report": first.report_fate or "none (downlink)"}),
    }  # fmt: skip
    for name, value in shared.items():
        fields.add_row(name, str(value))
    show_table(console, fields)
    if view.compact is not None:
        console.print(f"\n[bold]compact form[/bold], which went onto the wire, {len(view.compact)} B")
        console.print(hex_dump(view.compact, 0), soft_wrap=True)
        console.print("\nIt stands for:")
    for name, begin, end in sections(view):
        if begin < end:
            console.print(f"\n[bold]{name}[/bold], bytes {begin} to {end - 1}")
            console.print(hex_dump(view.data[begin:end], begin), soft_wrap=True)
    for part, report in enumerate(view.reports):
        if bundle:
            console.print(
                f"\n[bold]report {part}[/bold]: snapshot {report.snapshot}, round {report.round}, "
                f"{report.report_fate or 'no fate (downlink)'}"
            )
        show_report(console, report)


def report_fields(report: ReportView) -> dict[str, object]:
    """Return snapshot and round of a single report, as fields of the table."""
    return {"snapshot": report.snapshot, "round": report.round}


def each(bundle: bool) -> str:
    """Return the suffix of a length that holds for each report of a bundle."""
    return " each" if bundle else ""


def lengths(bits: Sequence[int]) -> str:
    """Return the lengths of payloads as text; a length that all share is given once."""
    if len(set(bits)) == 1:
        return f"{number(bits[0])} bit" + each(len(bits) > 1)
    return f"{', '.join(number(size) for size in bits)} bit"


def sections(view: FrameView) -> list[tuple[str, int, int]]:
    """Return name, begin and end of each part of a frame [B]: header, then all side information, then all payloads."""
    crc_at = len(view.data) - 4
    payload_at = crc_at - sum(len(report.payload.data) for report in view.reports)
    side_at = payload_at - sum(len(report.side) for report in view.reports)
    return [
        ("header", 0, side_at),
        ("side information", side_at, payload_at),
        ("payload", payload_at, crc_at),
        ("CRC-32", crc_at, len(view.data)),
    ]


def show_report(console: Console, report: ReportView) -> None:
    """Print side values, and indices if the payload's format is declared."""
    if report.side_values:
        console.print(f"\n[bold]side values[/bold], float32\n  {'  '.join(f'{x:.9g}' for x in report.side_values)}")
    if report.bits:
        console.print(f"\n[bold]indices[/bold], {len(report.index)} of {report.bits} bit, offset binary")
        console.print(index_rows(report.index.tolist(), report.bits), soft_wrap=True)
    if report.fields:
        console.print("\n[bold]payload by field[/bold]")
        table = new_table("", "field", "bits", "value", "step", "that is")
        for column in (0, 1):
            table.columns[column].justify = "left"
        for field in report.fields:
            sent = f"{field.index:0{field.bits}b}" if field.bits else "not sent"
            step = f"{field.step:.4g} {field.unit}"
            table.add_row(field.part, field.name, sent, f"{field.value:.6g} {field.unit}", step, field.words)
        show_table(console, table)


def _text(value: int | None) -> str:
    return "–" if value is None else str(value)


def hex_dump(data: bytes, offset: int, row: int = 24) -> str:
    """Return lines of `row` bytes, each with its offset in the frame."""
    return "\n".join(f"  {offset + at:6d}  {data[at : at + row].hex(' ', 4)}" for at in range(0, len(data), row))


def index_rows(index: Sequence[int], bits: int) -> str:
    """Return indices in aligned rows, each with the number of its first one."""
    width = len(str(2**bits - 1))
    row = max(1, {1: 32, 2: 32, 3: 24}.get(width, 8))
    return "\n".join(
        f"  {at:6d}  {' '.join(f'{value:{width}d}' for value in index[at : at + row])}"
        for at in range(0, len(index), row)
    )

"""The dictionary of all columns of a run's tables: written into each Parquet file, and printed in docs/columns.md."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from fronthaul.files import write_parquet

if TYPE_CHECKING:
    import pyarrow as pa

_KEY = {
    "bs": "base station",
    "epoch": "start of the base station's process, from 0: it is restarted in its next epoch",
    "snapshot": "snapshot, from 0",
    "round": "round of the exchange: 0 is the report, later ones are answers to states of the cloud",
}
_SIZES = {
    "payload_bits": "payload, exact to the bit [bit]",
    "side_bits": "side information [bit]",
    "header_bytes": "message header and CRC [B]",
    "padding_bits": "zeros up to the next byte [bit]",
    "zmtp_bytes": "framing of the transport, for ZeroMQ the ZMTP frame header [B]",
    "curve_bytes": "overhead of its encryption [B]",
}
_SENT = {
    "seq": "sequence number of the frame on its link, in this direction and epoch",
    "t_sent_ns": "when it was handed to the link, on the sender's clock; null: nobody journaled it",
    "t_release_ns": "when the link model let it go, on the sender's clock",
    "t_received_ns": "when it arrived, on the receiver's clock; null: never",
}
_FATES = {
    "frame_fate": "delivered, duplicate, corrupt, rejected or dropped, see docs/fronthaul.md",
    "report_fate": "used, unused, late or lost; null on the downlink",
    "reason": "why the frame was dropped, corrupt or rejected; null if it was not, or was lost with its process",
}
_STAGES = {
    "start": "time zero to the start of the base station's work",
    "estimate": "channel estimation",
    "encode": "the scheme's encoder",
    "pack": "quantising and packing",
    "fronthaul": "sent to received",
    "wait": "received to the start of fusion",
    "fuse": "fusion",
    "total": "time zero to the fix",
}
_WAY = {
    "handshake": "greeting and handshake of all connections",
    "control": "registration, welcome, goodbye",
    "heartbeat": "pings or pongs",
    "data": "all frames",
    "stray": "what arrived and no sender of the run wrote down",
    "least": "lower end of the prediction: known to have crossed",
    "most": "upper end of the prediction: may have crossed",
    "kernel_sent": "counted by the sender's kernel; null if a sender died before it recorded its count",
    "kernel_received": "counted by the receiver's kernel; null likewise",
}

# fmt: off
COLUMNS: Mapping[str, Mapping[str, str]] = {
    "fixes.parquet": {
        "snapshot": _KEY["snapshot"],
        "sample": "number of the test position: snapshot modulo their number",
        **{f"{true}{axis}_m": f"{what}, {axis} [m]" for axis in "xyz" for true, what in (
            ("true_", "true position"), ("", "estimate"))},
        "error_3d_m": "distance of estimate and truth [m]",
        "error_2d_m": "the same, seen from above [m]",
        "error_vertical_m": "the same in height [m]",
        "covariance_m2": "covariance that the scheme claims, row by row [m²]; null where it claims none",
        "used_bs": "base stations of the reports that were used; the next two likewise",
        "used_epoch": "their epochs",
        "used_round": "their rounds",
        "rounds": "number of rounds that the fix took",
        "note": "what the scheme says of the fix, in a word (docs/twin.md); null: nothing",
        **{f"{name}_{axis}_m": f"{what}, {axis} [m]; null without --track" for axis in "xyz" for name, what in (
            ("track", "position on the user's track given the fixes until then"),
            ("smooth", "the same given all fixes of the walk"))},
        "training_distance_m": "distance of the true position to the nearest training position [m]; null if unknown",
        "gdop": "geometric dilution of precision of ranges to the used base stations, at the true position; null where "
        "they determine no point",
        "t_zero_ns": "time zero of the snapshot",
        "t_last_received_ns": "when the last used report arrived",
        "t_fuse_ns": "when fusion began",
        "t_fix_ns": "when the fix was made",
        "last_bs": "base station of the report that came last: latencies are those of its path",
        **{f"{name}_ns": f"{what} [ns]" for name, what in _STAGES.items()},
        "fronthaul_uncertainty_ns": "uncertainty of fronthaul_ns due to the clocks' offset [ns]; 0 on one host",
    },
    "positions.parquet": {
        "sample": "number of the test position, as in fixes.parquet",
        "bs": _KEY["bs"],
        **{f"true_{axis}_m": f"the position, {axis} [m]" for axis in "xyz"},
        "distance_m": "distance of the position to the site [m]",
        "line_of_sight": "whether the link has a path without reflection; null in measured channels",
        "paths": "number of paths; null in measured channels",
        "gain_db": "sum of the paths' power gains between two antennas, or measured power [dB]; null if none is heard",
        "snr_db": "of a tone at one antenna, before estimation [dB]; null if nothing is heard, or without noise",
    },
    "controls.parquet": {
        "sample": "number of the test position, as in fixes.parquet",
        "prior_m": "3D error of the mean training position [m]",
        "prior_draw_m": "3D error of a random training position [m]",
        "wknn_m": "3D error of weighted nearest neighbours among fingerprints [m]",
        "linear_m": "3D error of local linear regression on the same fingerprints [m]",
        "bound_m": "position error bound, see sim/world/bound.py [m]; infinite where nothing determines the position",
    },
    "links/bs-000.parquet": {
        **_KEY,
        "seq": _SENT["seq"],
        "part": "number of the report in its frame, from 0: what the reports of a bundle share is counted at 0",
        "direction": "up: from the base station; down: from the cloud",
        **{name: _SENT[name] for name in ("t_sent_ns", "t_release_ns", "t_received_ns")},
        **_SIZES,
        **{name: _FATES[name] for name in ("frame_fate", "report_fate")},
        "crc32": "CRC-32 of the frame as sent",
        "side": "side information",
        "payload": "payload, its last byte padded with zeros",
        "reason": _FATES["reason"],
    },
    "links/stages.parquet": {
        **{name: _KEY[name] for name in ("bs", "epoch", "snapshot", "round")},
        "t_start_ns": "when the base station began to work on the report",
        **{f"{name}_ns": f"{_STAGES[name]} [ns]" for name in ("estimate", "encode", "pack")},
    },
    "links/connections.parquet": {
        "bs": _KEY["bs"],
        "connections": "number of connections",
        "cut": "how many of them a fault cut",
        **{f"{name}_{way}_bytes": f"{what}, {way} [B]" for way in ("up", "down") for name, what in _WAY.items()},
    },
    "links/sockets.parquet": {
        "bs": "base station; null for a peer that showed no name",
        "local": "address and port of this end",
        "remote": "address and port of the other end",
        "t_opened_ns": "when the connection was made",
        "t_closed_ns": "when it ended",
        "sent_bytes": "bytes that the kernel sent and saw acknowledged [B]",
        "received_bytes": "bytes that the kernel received [B]",
        "cut": "whether a fault cut it",
        "end": "edge or cloud: whose kernel counted",
    },
    "links/events.parquet": {
        "t_ns": "when it happened, on the clock of the end that noted it",
        "kind": "what: connections made, lost and refused, registrations, exclusions, and the like",
        "peer": "who: the other end's name or address, or the end itself",
        "detail": "particulars; null if there are none",
        "bs": "base station that it is about; null if none",
    },
    "links/pings.parquet": {
        **{name: _KEY[name] for name in ("bs", "epoch")},
        "t1": "when the ping was sent, on the base station's clock [ns]",
        "t2": "when it arrived, on the cloud's clock [ns]",
        "t3": "when its answer was sent, on the cloud's clock [ns]",
        "t4": "when the answer arrived, on the base station's clock [ns]",
    },
    "reports": {
        **{name: _KEY[name] for name in ("bs", "epoch", "snapshot", "round")},
        **_SENT,
        **_SIZES,
        **_FATES,
    },
    "links": {
        "bs": _KEY["bs"],
        "direction": "up: from the base station; down: from the cloud",
        **{f"frames_{fate}": f"frames that were {fate}" for fate in (
            "delivered", "duplicate", "corrupt", "rejected", "dropped")},
        "strays": "frames that arrived and nobody journaled",
        **{f"reports_{fate}": f"reports that were {fate}; null on the downlink" for fate in (
            "used", "unused", "late", "lost")},
        **_SIZES,
        "unsure_bytes": "stream bytes of frames lost without a reason, among the above: perhaps never sent [B]",
        "tcpip_bytes": "modelled: stream and TCP/IP headers, each frame in its own segment [B]",
        "ethernet_bytes": "modelled: the same with Ethernet headers [B]",
        "ecpri_ethernet_bytes": "modelled: frames as eCPRI type 3 directly over Ethernet, MTU 1500 [B]",
        "ecpri_jumbo_bytes": "modelled: the same with an MTU of 9000 [B]",
        "stream_bytes": "all frames on the TCP stream [B]",
    },
}
# fmt: on
"""Description of each column, by file; "reports" and "links" are tables that the Python API makes of the ledgers.

Times ``t_…_ns`` are in nanoseconds on the run's clock: Unix time, or the simulated clock that begins at 0.
"""


def described(schema: pa.Schema, name: str) -> pa.Schema:
    """Return a schema whose fields carry their descriptions as metadata, under the key ``description``.

    Args:
        schema: columns, all of them in `COLUMNS`.
        name: key of `COLUMNS`.
    """
    import pyarrow as pa

    words = COLUMNS[name]
    fields = [field.with_metadata({"description": words[field.name]}) for field in schema]
    return pa.schema(fields, schema.metadata)


def write_table(table: pa.Table, path: Path) -> None:
    """Write a table of a run, with the descriptions of its columns."""
    name = path.name if path.name in COLUMNS else f"links/{path.name}"
    write_parquet(table.cast(described(table.schema, name)), path)

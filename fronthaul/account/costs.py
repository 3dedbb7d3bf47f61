"""Bytes that a message costs, each overhead by name (docs/fronthaul.md, "Bytes").

Counted: the bytes on a link's stream, including our own header and the transport's overhead (`TransportCosts`).
Modelled, and named so: what TCP/IP and Ethernet would add on a link with the stated MTU, without
acknowledgements and retransmissions.
"""

from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from fronthaul.message.columns import FrameColumns, Ints
from fronthaul.message.compact import (
    COMPACT_BUNDLE_HEADER_BYTES,
    COMPACT_HEADER_BYTES,
    FULL_EVERY,
    MAX_STANDARD_BYTES,
)
from fronthaul.message.wire import (
    BUNDLE_HEADER_BYTES,
    BUNDLE_KEY_BYTES,
    CRC_BYTES,
    HEADER_BYTES,
    MIXED_KEY_BYTES,
)
from fronthaul.transport.endpoint import IPV4_HEADER_BYTES
from fronthaul.transport.transport_costs import TransportCosts

TCP_HEADER_BYTES = 32
"""Header 20 B + timestamps 12 B [B]."""
ETHERNET_MTU = 1500
"""Longest IP packet on common links [B]."""
ETHERNET_HEADER_BYTES = 14
"""Destination, source and ethertype [B]."""
ETHERNET_MIN_PAYLOAD_BYTES = 46
"""Shorter Ethernet payloads are padded to this [B]."""
PREAMBLE_FCS_GAP_BYTES = 24
"""Preamble 8 B + frame check sequence 4 B + gap 12 B between Ethernet frames [B]."""
ECPRI_HEADER_BYTES = 12
"""eCPRI common header 4 B + PC_ID 4 B + SEQ_ID 4 B of type 3, generic data transfer [B]."""


@dataclass(frozen=True, slots=True)
class FrameCost:
    """The cost of one report of a frame on the TCP stream, by component.

    Attributes:
        payload_bits: payload, exact [bit].
        side_bits: side information [bit].
        header_bytes: our own header and CRC [B].
        padding_bits: zeros up to the next byte after the payload [bit].
        zmtp_bytes: the transport's framing; for ZeroMQ, the ZMTP frame header [B].
        curve_bytes: overhead of the transport's encryption; for ZeroMQ, CURVE [B]; 0 without encryption.
    """

    payload_bits: int
    side_bits: int
    header_bytes: int
    padding_bits: int
    zmtp_bytes: int
    curve_bytes: int

    @property
    def stream_bytes(self) -> int:
        """Total bytes on the TCP stream [B]."""
        bits = self.payload_bits + self.padding_bits + self.side_bits
        return bits // 8 + self.header_bytes + self.zmtp_bytes + self.curve_bytes


COSTS = tuple(field.name for field in fields(FrameCost))
"""Names of the components, which are columns of a ledger."""


def cost_columns(frames: FrameColumns, transport: TransportCosts) -> dict[str, npt.NDArray[np.int64]]:
    """Return what frames of P reports cost on the stream of a transport: the fields of `FrameCost`, (P,) each.

    The first report of a frame includes what all of them share, so that the sum is the frame's cost.
    """
    first, of = frames.part == 0, frames.frame
    header = header_columns(
        frames.count, frames.seq, frames.snapshot, frames.round, frames.payload_bits, frames.side_bytes[of],
        compact=np.full(len(frames.count), transport.compact),
    )  # fmt: skip
    sizes, which = np.unique(
        np.bincount(of, header + frames.side_bytes[of] + (frames.payload_bits + 7 >> 3)), return_inverse=True
    )
    framing = np.array([transport.framing_bytes(int(size)) for size in sizes], np.int64)[which]
    return {
        "payload_bits": frames.payload_bits,
        "side_bits": 8 * frames.side_bytes[of],
        "header_bytes": header,
        "padding_bits": -frames.payload_bits & 7,
        "zmtp_bytes": np.where(first, framing[of], 0),
        "curve_bytes": np.where(first, transport.encryption_bytes, 0),
    }


def header_columns(
    count: Ints,
    seq: Ints,
    snapshot: Ints,
    round_: Ints,
    bits: Ints,
    side_bytes: Ints,
    *,
    compact: npt.NDArray[np.bool_],
) -> Ints:
    """Return header and CRC [B] of P reports in F frames, (P,): the first report of a frame takes what all share.

    Args:
        count: (F,) number of reports, one or more.
        seq: (F,) number of the frame.
        snapshot: (P,) of the report.
        round_: (P,) of the report.
        bits: (P,) payload [bit].
        side_bytes: (P,) side information [B].
        compact: (F,) whether the frame goes in its compact form if it has one.
    """
    if not len(count):
        return np.zeros(0, np.int64)
    frame = np.repeat(np.arange(len(count)), count)
    begins = np.cumsum(count) - count
    single = count == 1
    mixed = np.minimum.reduceat(bits, begins) < np.maximum.reduceat(bits, begins)
    own = np.where(single, 0, np.where(mixed, MIXED_KEY_BYTES, BUNDLE_KEY_BYTES))[frame]
    shared = np.where(single, HEADER_BYTES, BUNDLE_HEADER_BYTES) + CRC_BYTES
    if compact.any():
        size = shared + np.add.reduceat(own + side_bytes + (bits + 7 >> 3), begins)
        in_order = (np.diff(snapshot, prepend=0) == 1) & (round_ == 0)
        in_order[begins] = round_[begins] == 0
        packed = compact & (size <= MAX_STANDARD_BYTES) & np.logical_and.reduceat(in_order, begins)
        packed &= seq % FULL_EVERY != FULL_EVERY - 1
        shared[packed] = np.where(single, COMPACT_HEADER_BYTES, COMPACT_BUNDLE_HEADER_BYTES)[packed] + CRC_BYTES
        length_bytes = np.searchsorted([1 << 7, 1 << 14, 1 << 21, 1 << 28], bits, side="right") + 1
        own = np.where(packed[frame], np.where(mixed[frame], length_bytes, 0), own)
    own[begins] += shared
    return own


def modelled_tcpip_bytes(stream_bytes: int, ip_header_bytes: int = IPV4_HEADER_BYTES) -> int:
    """Return stream and TCP/IP headers [B], assuming that the stream is cut into full segments."""
    return stream_bytes + _segments(stream_bytes, ip_header_bytes) * (ip_header_bytes + TCP_HEADER_BYTES)


def modelled_ethernet_bytes(
    stream_bytes: int, ip_header_bytes: int = IPV4_HEADER_BYTES, *, preamble_fcs_gap: bool = False
) -> int:
    """Return stream, TCP/IP and Ethernet headers [B]; `preamble_fcs_gap` adds 24 B to each Ethernet frame.

    No frame is padded: TCP/IP headers alone exceed the minimum of 46 B.
    """
    per_frame = ETHERNET_HEADER_BYTES + (PREAMBLE_FCS_GAP_BYTES if preamble_fcs_gap else 0)
    return modelled_tcpip_bytes(stream_bytes, ip_header_bytes) + _segments(stream_bytes, ip_header_bytes) * per_frame


def _segments(stream_bytes: int, ip_header_bytes: int) -> int:
    """Return the number of TCP segments, of 1448 B over IPv4 and of 1428 B over IPv6."""
    return -(-stream_bytes // (ETHERNET_MTU - ip_header_bytes - TCP_HEADER_BYTES))


def modelled_ecpri_ethernet_bytes(
    report_bytes: int,
    mtu: int = ETHERNET_MTU,
    *,
    preamble_fcs_gap: bool = False,
) -> int:
    """Return what `report_bytes` would cost as eCPRI type 3 directly on Ethernet [B].

    Longer reports are split at the MTU (1500 on common links, 9000 with jumbo frames). Each piece has its own eCPRI and
    Ethernet headers, and short pieces are padded to the Ethernet minimum.
    """
    room = mtu - ECPRI_HEADER_BYTES
    whole, rest = divmod(report_bytes, room)
    pieces = [room] * whole + [rest] * (rest > 0 or whole == 0)
    per_frame = ETHERNET_HEADER_BYTES + (PREAMBLE_FCS_GAP_BYTES if preamble_fcs_gap else 0)
    return sum(per_frame + max(piece + ECPRI_HEADER_BYTES, ETHERNET_MIN_PAYLOAD_BYTES) for piece in pieces)


def lossless_bits(slots: int, antennas: int, tones: int) -> int:
    """Return the size of a snapshot's uncompressed CSI [bit]: 64 bits per complex number (ECC Eq. 37)."""
    return 64 * slots * antennas * tones

"""Bytes that a message costs, each overhead by name (docs/fronthaul.md, "Bytes").

Counted: the bytes on a link's stream, including our own header and the transport's overhead (`TransportCosts`).
Modelled, and named so: what TCP/IP and Ethernet would add on a link with the stated MTU, without
acknowledgements and retransmissions.
"""

from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from fronthaul.message.columns import FrameColumns
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
    single = frames.count == 1
    bits = frames.payload_bits
    first = frames.part == 0
    mixed = np.zeros(len(single), np.bool_)
    if not single.all():
        begins = np.flatnonzero(first)
        mixed = np.minimum.reduceat(bits, begins) < np.maximum.reduceat(bits, begins)
    own = np.where(single, 0, np.where(mixed, MIXED_KEY_BYTES, BUNDLE_KEY_BYTES))
    shared = np.where(single, HEADER_BYTES, BUNDLE_HEADER_BYTES) + CRC_BYTES
    sizes, which = np.unique(frames.size, return_inverse=True)
    framing = np.array([transport.framing_bytes(int(size)) for size in sizes], np.int64)[which]
    of = frames.frame
    return {
        "payload_bits": bits,
        "side_bits": 8 * frames.side_bytes[of],
        "header_bytes": own[of] + np.where(first, shared[of], 0),
        "padding_bits": -bits & 7,
        "zmtp_bytes": np.where(first, framing[of], 0),
        "curve_bytes": np.where(first, transport.encryption_bytes, 0),
    }


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

"""Bytes that a message costs, each overhead by name (docs/fronthaul.md, "Bytes").

Counted: the bytes on a link's stream, including our own header and the transport's overhead (`TransportCosts`).
Modelled, and named so: what TCP/IP and Ethernet would add on a link with the stated MSS or MTU, without
acknowledgements and retransmissions.
"""

from dataclasses import dataclass

from fronthaul.message.messages import Frame
from fronthaul.message.wire import BUNDLE_HEADER_BYTES, BUNDLE_KEY_BYTES, CRC_BYTES, HEADER_BYTES, MIXED_KEY_BYTES
from fronthaul.transport.transport_costs import TransportCosts

TCPIP_HEADER_BYTES = 52
"""IPv4 20 B + TCP 20 B + timestamps 12 B [B]."""
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


def frame_costs(frame: Frame, transport: TransportCosts) -> tuple[FrameCost, ...]:
    """Return what a frame costs on the stream of a transport, one entry per report.

    The first entry includes what the reports of a bundle share, so that the sum over entries is the frame's cost.
    """
    bits, side_bytes = frame.head.payload_bits, frame.head.side_bytes
    count = len(bits)
    if count == 1:
        shared_bytes, own_bytes = HEADER_BYTES + CRC_BYTES, 0
    else:
        shared_bytes = BUNDLE_HEADER_BYTES + CRC_BYTES
        own_bytes = MIXED_KEY_BYTES if frame.head.is_mixed else BUNDLE_KEY_BYTES
    body_bytes = shared_bytes + count * (own_bytes + side_bytes) + sum([(size + 7) >> 3 for size in bits])
    zmtp_bytes, curve_bytes = transport.framing_bytes(body_bytes), transport.encryption_bytes
    side_bits = 8 * side_bytes
    first = FrameCost(bits[0], side_bits, shared_bytes + own_bytes, -bits[0] & 7, zmtp_bytes, curve_bytes)
    return (first, *[FrameCost(size, side_bits, own_bytes, -size & 7, 0, 0) for size in bits[1:]])


def modelled_tcpip_bytes(stream_bytes: int, mss: int = 1448, header: int = TCPIP_HEADER_BYTES) -> int:
    """Return stream and TCP/IP headers [B], assuming that the stream is cut into full segments of `mss` B."""
    return stream_bytes + -(-stream_bytes // mss) * header


def modelled_ethernet_bytes(
    stream_bytes: int,
    mss: int = 1448,
    header: int = TCPIP_HEADER_BYTES,
    per_frame: int = ETHERNET_HEADER_BYTES,
    *,
    preamble_fcs_gap: bool = False,
) -> int:
    """Return stream, TCP/IP and Ethernet headers [B]; `preamble_fcs_gap` adds 24 B to each Ethernet frame.

    No frame is padded: TCP/IP headers alone exceed the minimum of 46 B.
    """
    segments = -(-stream_bytes // mss)
    line = PREAMBLE_FCS_GAP_BYTES if preamble_fcs_gap else 0
    return modelled_tcpip_bytes(stream_bytes, mss, header) + segments * (per_frame + line)


def modelled_ecpri_ethernet_bytes(
    report_bytes: int,
    mtu: int = 1500,
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

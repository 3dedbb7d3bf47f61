"""Print what a report costs on its link, in both forms of the wire format: a table of docs/fronthaul.md.

python docs/wire_costs.py
"""

from fronthaul.account.costs import modelled_ecpri_ethernet_bytes, modelled_ethernet_bytes, modelled_tcpip_bytes
from fronthaul.message.compact import pack
from fronthaul.message.messages import Frame, Payload, Report, ReportKey
from fronthaul.message.wire import encode
from fronthaul.transport.zmtp import ZMTP_NULL

BITS = (8, 64, 128, 1024)
BUNDLES = (1, 4, 16, 64)


def costs(bits: int, bundle: int) -> list[str]:
    """Return bytes a report on the stream, with TCP/IP, with Ethernet below it, and as eCPRI: standard / compact."""
    reports = tuple(Report(ReportKey(0, 0, n), Payload(bytes(bits // 8), bits)) for n in range(bundle))
    standard = encode(Frame(0, reports))
    cells = []
    for cost in (
        lambda size: ZMTP_NULL.stream_bytes(size),
        lambda size: modelled_tcpip_bytes(ZMTP_NULL.stream_bytes(size)),
        lambda size: modelled_ethernet_bytes(ZMTP_NULL.stream_bytes(size), preamble_fcs_gap=True),
        lambda size: modelled_ecpri_ethernet_bytes(size, preamble_fcs_gap=True),
    ):
        cells.append(" / ".join(f"{round(cost(len(data)) / bundle, 1):g}" for data in (standard, pack(standard))))
    return cells


def table() -> str:
    """Return the table."""
    lines = [
        "| payload [bit] | reports a message | stream [B] | TCP/IP [B] | Ethernet [B] | eCPRI on Ethernet [B] |",
        "|---|---|---|---|---|---|",
    ]
    for bits in BITS:
        lines += ["| " + " | ".join([str(bits), str(bundle), *costs(bits, bundle)]) + " |" for bundle in BUNDLES]
    return "\n".join(lines)


if __name__ == "__main__":
    print(table())

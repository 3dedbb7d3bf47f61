"""How the cloud takes in what nearly all polls bring: new reports only, each in a frame of its own.

They are checked, judged and logged by columns, all at once. Anything else is left to the caller, who goes through the
messages one by one: `wire.decode`, `Collector.frame` and the rows of the log say what becomes of each and why.
"""

from __future__ import annotations

from collections.abc import Sequence

from cloud.collector import Collector
from fronthaul.log.recorder import Recorder
from fronthaul.message.wire import ReportHeads, report_heads
from fronthaul.transport.transport import Arrived

FEW = 4
"""Fewer messages take as long one by one, or less."""


def take_new_reports(came: Sequence[Arrived], collector: Collector, recorder: Recorder) -> ReportHeads | None:
    """Collect and log messages if all of them are new reports; None, and nothing has happened, if one is not.

    None also if they are few.

    Raises:
        LocalError: the disk is full.
    """
    if len(came) < FEW:
        return None
    owners, sent, t_received_ns = zip(*came, strict=True)
    heads = report_heads(sent)
    late = None if heads is None else collector.new_reports(owners, sent, heads, t_received_ns)
    if heads is None or late is None:
        return None
    recorder.delivered(t_received_ns, sent, heads, late)
    return heads

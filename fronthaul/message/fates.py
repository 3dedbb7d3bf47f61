"""Fates of frames and of reports.

A frame is one copy on one link; a report may have several frames. The frame of a late report is delivered: the report
is late, the frame is not.
"""

from enum import StrEnum


class FrameFate(StrEnum):
    """Fate of a frame: one copy of a message of reports on one link."""

    DELIVERED = "delivered"
    """Arrived and decoded; the first with its reports."""
    DUPLICATE = "duplicate"
    """Arrived and decoded, but its reports had been delivered before."""
    CORRUPT = "corrupt"
    """Arrived with a wrong checksum, version, length or field."""
    REJECTED = "rejected"
    """Decoded, but not admissible: wrong BS for the connection, unknown epoch, over a limit."""
    DROPPED = "dropped"
    """Never arrived: dropped by the link model or the transport, or lost when a process or connection died."""


class ReportFate(StrEnum):
    """Fate of a report."""

    USED = "used"
    """Part of a fix."""
    UNUSED = "unused"
    """In time, but not part of a fix: too few BSs, no finite fix, or excluded by the fusion rule."""
    LATE = "late"
    """Arrived at or after the deadline, or after its round was closed."""
    LOST = "lost"
    """No copy of it was delivered."""

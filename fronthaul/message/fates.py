"""What became of a frame, and of a report (accounting, "Fates").

A frame is one copy on one link; a report may have several frames. A late report's frame is delivered: the
report is late, the frame is not.
"""

from enum import StrEnum


class FrameFate(StrEnum):
    """What became of one copy of one report on one link."""

    DELIVERED = "delivered"
    """Arrived, decoded, first of its report."""
    DUPLICATE = "duplicate"
    """Arrived, decoded, but its report had arrived already."""
    CORRUPT = "corrupt"
    """Arrived with a wrong checksum, version, length or field."""
    REJECTED = "rejected"
    """Authentic, but not allowed: wrong BS for the connection, unknown epoch, over a limit."""
    DROPPED = "dropped"
    """Never arrived: the link model's reason, or sent by a process that died."""


class ReportFate(StrEnum):
    """What became of one report."""

    USED = "used"
    """In the fix."""
    UNUSED = "unused"
    """On time, but the fix was not made: fewer BSs than the minimum."""
    LATE = "late"
    """After the deadline."""
    LOST = "lost"
    """No good copy arrived."""

"""The fusion centre: groups of reports to fixes, with the time that takes."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from cloud.fusion.scheme import Fix, Fusion
from fronthaul.messages import Report


class FusionCenter:
    """Runs a fusion rule. A fix is a pure function of its used reports and the run's seed.

    Attributes:
        fuse_ns: what the last call of `fixes` took [ns].
    """

    def __init__(self, fusion: Fusion, timer_ns: Callable[[], int] = time.perf_counter_ns) -> None:
        """Use `fusion`; `timer_ns` is what stage times are read from [ns]."""
        self._fusion = fusion
        self._timer_ns = timer_ns
        self.fuse_ns = 0

    def fixes(self, groups: Sequence[Sequence[Report]]) -> list[Fix]:
        """Return one fix a group; a group is the used reports of one snapshot, ordered by BS.

        Raises:
            ValueError: the fusion rule returned another number of fixes.
        """
        begin_ns = self._timer_ns()
        fixes = self._fusion.fuse(groups)
        self.fuse_ns = self._timer_ns() - begin_ns
        if len(fixes) != len(groups):
            raise ValueError(f"the fusion rule made {len(fixes)} fixes from {len(groups)} snapshots")
        return fixes

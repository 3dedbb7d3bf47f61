"""Audit of a run's folder: every check that is possible without running again, with one finding per check.

A run's tables hold what was recorded (ledgers, fixes, stage times, pings, sockets, events) and what follows from it
(costs, sums, errors, latencies, the summary). An audit computes what follows once more, by the code that wrote it, and
reports where the two differ; holds what was recorded against the captures, the kernels' counts, the link model's draws
and the test set; and checks the files against the manifest that the run ended with. A run that was cut is audited on
the ledgers that `inspect --recover` closed.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sim.errors import UserError
from sim.inspect.finding import Finding, finding
from sim.inspect.frame_checks import check_bytes, check_costs, check_formats, check_links, check_order
from sim.inspect.run_tables import RunTables
from sim.inspect.table_checks import (
    check_fates,
    check_fixes,
    check_journals,
    check_kernels,
    check_positions,
    check_stages,
    check_summary,
    check_sums,
    check_truth,
)
from sim.records.folder import RunFolder
from sim.records.manifest import Manifest


@dataclass(frozen=True)
class Audit:
    """All checks of a run.

    Attributes:
        findings: in the order in which they were made.
    """

    findings: tuple[Finding, ...]

    @property
    def failed(self) -> int:
        """Number of checks that fail."""
        return sum(finding.state == "fails" for finding in self.findings)

    @property
    def ok(self) -> bool:
        """Whether no check fails."""
        return self.failed == 0


def audit(folder: Path, key: bytes | None = None) -> Audit:
    """Check a run's folder.

    Args:
        folder: folder of the run.
        key: secret with which the manifest was signed; None leaves the signature out.

    Raises:
        UserError: the folder is not a run's, or it has no ledgers.
    """
    run = RunTables(RunFolder(folder))
    findings = [_checked("files", lambda: [_files(run, key)])]
    for name, check in _CHECKS:
        findings.append(_checked(name, functools.partial(check, run)))
    return Audit(tuple(finding for found in findings for finding in found))


def _checked(name: str, check: Callable[[], list[Finding]]) -> list[Finding]:
    """Return what a check finds; a table that it cannot read is a finding, too."""
    try:
        return check()
    except UserError as error:
        return [Finding(name, "fails", str(error))]


def _files(run: RunTables, key: bytes | None) -> Finding:
    manifest = Manifest(run.folder.path)
    if run.was_cut:
        return Finding("files", "left out", "the run was cut before its manifest")
    return finding("files", *manifest.problems(key))


_CHECKS: tuple[tuple[str, Callable[[RunTables], list[Finding]]], ...] = (
    ("fates", check_fates),
    ("fixes", check_fixes),
    ("stages", check_stages),
    ("truth", check_truth),
    ("positions", check_positions),
    ("CRC-32", check_bytes),
    ("bytes of frames", check_costs),
    ("payload", check_formats),
    ("order", check_order),
    ("link model", check_links),
    ("sums of links", check_sums),
    ("kernel", check_kernels),
    ("summary", check_summary),
    ("journals", check_journals),
)

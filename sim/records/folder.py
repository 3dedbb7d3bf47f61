"""A run's folder: its file names, the recorded configuration, and its completion.

A folder is called ``<name>.part`` until it is complete, so that an interrupted run is never mistaken for a complete
one. Its streams (journals, receive logs and the like, `fronthaul.log.recorder`) exist from the first message on;
`remove_streams` removes them in the end, since ledgers and tables hold the same data.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import platform
import subprocess
import time
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from fronthaul.documents import parse_toml, read_text
from fronthaul.errors import LocalError
from fronthaul.link.link_file import LinkPlan, link_plan, link_table
from fronthaul.log.stream_names import CAPTURE, LEDGER, ledgers, link_name, start_of, streams
from fronthaul.message.messages import PayloadFormat
from sim.arithmetic import THREADS
from sim.errors import UserError
from sim.files import write_text
from sim.plan.options import folder_label
from sim.plan.plan import Plan
from sim.plan.settings import EmulateSettings
from sim.toml.write import toml_text
from sim.world.scenario import Scenario, scenario_from_table, scenario_table

_PACKAGES = ("cofix", "numpy", "torch", "pyarrow", "pyzmq", "ray", "msgpack", "bitarray", "safetensors")
_SOURCE_FOLDER = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class RunFolder:
    """Paths in a run's folder; `path` ends in ``.part`` until `finish`."""

    path: Path

    @classmethod
    def create(cls, settings: EmulateSettings, scenario_name: str) -> RunFolder:
        """Create the folder of a new run.

        Raises:
            UserError: the output folder cannot be written.
        """
        stamp = time.strftime("%Y%m%d-%H%M%S")
        name = f"{stamp}-{scenario_name}-{folder_label(settings)}"
        for attempt in range(1000):
            whole = settings.output / (f"{name}-{attempt + 1}" if attempt else name)
            part = whole.with_name(whole.name + ".part")
            if whole.exists():
                continue
            try:
                part.mkdir(parents=True)
                (part / "links").mkdir()
            except FileExistsError as error:
                if settings.output.exists() and not settings.output.is_dir():
                    raise UserError(f"--output {settings.output} is a file, not a folder.") from error
                continue
            except OSError as error:
                raise UserError(f"Cannot write to --output {settings.output}: {error.strerror}.") from error
            return cls(part)
        raise UserError(f"--output {settings.output} has a thousand runs of this second; choose another.")

    @property
    def links(self) -> Path:
        """Folder of the files of single links."""
        return self.path / "links"

    @property
    def fixes(self) -> Path:
        """Table of fixes."""
        return self.path / "fixes.parquet"

    @property
    def positions(self) -> Path:
        """Table of what the world says about each link of each test position."""
        return self.path / "positions.parquet"

    @property
    def connections(self) -> Path:
        """Table of connections."""
        return self.links / "connections.parquet"

    @property
    def sockets(self) -> Path:
        """Table of TCP connections, as the kernel at each end counted them."""
        return self.links / "sockets.parquet"

    @property
    def events(self) -> Path:
        """Table of events."""
        return self.links / "events.parquet"

    @property
    def stages(self) -> Path:
        """Table of stage times."""
        return self.links / "stages.parquet"

    @property
    def pings(self) -> Path:
        """Table of pings that were answered."""
        return self.links / "pings.parquet"

    @property
    def controls(self) -> Path:
        """Table of the controls' errors."""
        return self.path / "controls.parquet"

    @property
    def error_cdf(self) -> Path:
        """Plot of the error distribution."""
        return self.path / "error-cdf.png"

    @property
    def map(self) -> Path:
        """Map of sites, true and estimated positions."""
        return self.path / "map.png"

    @property
    def report(self) -> Path:
        """Report as one HTML file."""
        return self.path / "report.html"

    @property
    def summary(self) -> Path:
        """Summary."""
        return self.path / "summary.json"

    @property
    def record(self) -> Path:
        """Resolved configuration."""
        return self.path / "run.toml"

    def streams(self, kind: str, bs: int | None = None) -> list[Path]:
        """Return the existing streams of one kind, see `stream_names.streams`."""
        return streams(self.links, kind, bs)

    def capture(self, bs: int) -> Path:
        """Return the path of a link's capture."""
        return self.links / f"{link_name(bs)}{CAPTURE}"

    def ledger(self, bs: int | None) -> Path:
        """Return the path of a link's ledger; None stands for connections that belong to no base station."""
        return self.links / f"{link_name(bs)}{LEDGER}"

    def ledgers(self) -> dict[int | None, Path]:
        """Return the existing ledgers by BS."""
        return ledgers(self.links)

    def remove_streams(self) -> None:
        """Remove the streams, whose content is in the tables."""
        for path in self.links.iterdir():
            if start_of(path.name) is not None:
                path.unlink()

    def finish(self) -> RunFolder:
        """Rename the folder to drop ``.part``, and return it."""
        whole = self.path.with_name(self.path.name.removesuffix(".part"))
        self.path.rename(whole)
        return RunFolder(whole)


@dataclass(frozen=True)
class RunConfiguration:
    """Content of `run.toml`.

    Attributes:
        settings: settings of the run.
        scenario: resolved scenario.
        weights_path: file of the weights.
        weights_digest: digest of its content.
        format: payload format of reports in round 0.
        answer_format: payload format of answers in later rounds; None if a fix takes one round.
        digest: SHA-256 of the file.
        commit: commit of the source; None outside a checkout.
        users: number of test users; 0 in runs before 0.3.0.
        truth_digest: `truth_digest` of their positions; None in runs before 0.3.0.
    """

    settings: EmulateSettings
    scenario: Scenario
    weights_path: Path
    weights_digest: str
    format: PayloadFormat
    answer_format: PayloadFormat | None = None
    digest: str = ""
    commit: str | None = None
    users: int = 0
    truth_digest: str | None = None

    @property
    def stations(self) -> range:
        """Numbers of the base stations."""
        return self.settings.stations(self.scenario)


def write_configuration(folder: RunFolder, plan: Plan, source: str | None = None) -> None:
    """Write `run.toml`: everything that the run's results depend on.

    Args:
        folder: of the run.
        plan: what is run.
        source: commit of the source; None for that of this process.
    """
    settings = {k: _plain(getattr(plan.settings, k)) for k in _setting_names()}
    settings["options"] = dict(plan.settings.options)
    table = {
        "commit": source or commit(),
        "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "settings": settings,
        "weights": {"path": str(plan.weights_path.resolve()), "digest": plan.weights_digest},
        "truth": {"users": len(plan.truth), "digest": truth_digest(plan.truth)},
        "format": dataclasses.asdict(plan.format),
        **({"answer_format": dataclasses.asdict(plan.answer_format)} if plan.answer_format else {}),
        "environment": {
            "python": platform.python_version(),
            "machine": platform.machine(),
            "system": platform.system(),
            "cpu_capability": torch.backends.cpu.get_cpu_capability(),
            "threads": THREADS,
            "devices": {"edge": plan.settings.edge_device, "cloud": plan.settings.cloud_device},
            "batch": plan.settings.batch,
            "packages": {name: _version(name) for name in _PACKAGES},
        },
        "scenario": scenario_table(plan.scenario),
    }
    write_text(folder.record, toml_text(table))


def read_configuration(folder: RunFolder) -> RunConfiguration:
    """Read `run.toml`.

    Raises:
        UserError: it is missing or damaged.
    """
    try:
        text = read_text(folder.record)
        table = parse_toml(text)
    except OSError as error:
        raise UserError(f"{folder.path} is not a run's folder: it has no {folder.record.name}.") from error
    except LocalError as error:
        raise UserError(f"{folder.record} is damaged: {error}.") from error
    try:
        given = {k: v for k, v in table["settings"].items() if k in _setting_names()}
        given |= {k: Path(given[k]) for k in ("output", "weights", "test", "keys", "sign", "log_json") if k in given}
        given["links"] = link_plan(given.get("links", {}))
        given["options"] = tuple(given.get("options", {}).items())
        settings = EmulateSettings(**({"bits": None} | given))  # TOML has no None: such settings are left out
        answers = table.get("answer_format") or table.get("answer_codec")
        return RunConfiguration(
            settings=settings,
            scenario=scenario_from_table(table["scenario"], str(folder.record)),
            weights_path=Path(table["weights"]["path"]),
            weights_digest=table["weights"]["digest"],
            format=_format(table.get("format") or table["codec"]),
            answer_format=_format(answers) if answers else None,
            digest=hashlib.sha256(text.encode()).hexdigest(),
            commit=table.get("commit"),
            users=table.get("truth", {}).get("users", 0),
            truth_digest=table.get("truth", {}).get("digest"),
        )
    except KeyError as error:
        raise UserError(f"{folder.record} is damaged: it lacks {error}.") from error
    except (TypeError, AttributeError, LocalError) as error:
        raise UserError(f"{folder.record} is damaged: {error}.") from error


def truth_digest(position: npt.NDArray[np.float64]) -> str:
    """Return the SHA-256 of the positions of the test users (N, 3) [m], as float64, little endian."""
    return hashlib.sha256(np.ascontiguousarray(position, "<f8").tobytes()).hexdigest()


def _format(table: dict[str, Any]) -> PayloadFormat:
    """Read a payload format; runs of earlier versions record bits and coefficients instead."""
    return PayloadFormat.uniform(**table) if "bits" in table else PayloadFormat(**table)


def commit() -> str | None:
    """Return the commit of a source checkout, with "+" if files had changed since; None outside a checkout.

    A process keeps its first answer: it runs what it has imported, whatever becomes of the checkout meanwhile.
    """
    return _commit_of(_SOURCE_FOLDER)


@functools.cache
def _commit_of(folder: Path) -> str | None:
    if not (folder / ".git").exists():
        return None
    head = _git(folder, "rev-parse", "HEAD")
    if head is None or head.returncode != 0:
        return None
    # Without optional locks git writes nothing, not even its index.
    clean = _git(folder, "--no-optional-locks", "diff-index", "--quiet", "HEAD")
    return head.stdout.strip() + ("" if clean is not None and clean.returncode == 0 else "+")


def _git(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str] | None:
    command = ["git", "-C", str(folder), *arguments]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None


def _setting_names() -> list[str]:
    return [field.name for field in dataclasses.fields(EmulateSettings)]


def _plain(value: Any) -> Any:
    if isinstance(value, LinkPlan):
        return link_table(value)
    return str(value) if isinstance(value, Path) else value


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None

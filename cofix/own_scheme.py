"""For a scheme of one's own: channels to train on, a weights file, and a check of what the emulator expects."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np
import numpy.typing as npt

from cofix.emulation import emulate
from cofix.options import Options
from cofix.run import Run
from sim.errors import UserError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from sim.world.scenario import Scenario

_CHUNK = 500
_SAME_M = 1e-3
_LEFT_OUT = ("report", "capture", "controls")
_OWN = ("driver", "batch", "output", "loss", "reorder", "jitter", "interval", *_LEFT_OUT)


@dataclass(frozen=True)
class TrainingChannels:
    """Channels of N users at K base stations, as the base stations estimate them, and where the users were.

    Attributes:
        scenario: where they were traced.
        channel: (N, K, slot, antenna, tone) complex64.
        position: (N, 3) [m].
        covariance: spatial covariance of each base station's channel (K, tone, antenna, antenna) complex64, which the
            base stations' estimator uses.
    """

    scenario: Scenario
    channel: npt.NDArray[np.complex64]
    position: npt.NDArray[np.float64]
    covariance: npt.NDArray[np.complex64]


def training_channels(
    scenario: str = "paris-6",
    users: int = 1000,
    *,
    data: str | os.PathLike[str] | None = None,
    split: str = "random",
    seed: int = 0,
) -> TrainingChannels:
    """Return channels at training positions, with fresh noise, motion and clock errors; none is of the test set.

    Args:
        scenario: name of a shipped scenario, or path of a TOML file. It must have been traced.
        users: number of users; fewer if the split has fewer.
        data: path data set; by default where ``python cli.py trace`` writes it.
        split: ``random`` or ``block``.
        seed: of the draws.

    Raises:
        UserError: there is no path data set, it is of another scenario, or has no training positions.
    """
    import torch

    from sim.learn.data import SnapshotSource, measure_covariance
    from sim.learn.splits import split_positions
    from sim.world.channel import pad_paths
    from sim.world.scenario import load_scenario
    from sim.world.store import DATA_FOLDER, load_traced

    if split not in ("random", "block"):
        raise UserError(f"split is 'random' or 'block', not {split!r}.")
    world = load_scenario(scenario)
    file = Path(data) if data is not None else DATA_FOLDER / world.data_name / "paths.npz"
    if not file.exists():
        raise UserError(f"There are no paths at {file}: make them with `python cli.py trace {scenario}`.")
    paths = load_traced(world, file)
    train = split_positions(world, paths.position, split).train[:users]  # type: ignore[arg-type]  # checked above
    if not len(train):
        raise UserError(f"{file} has no training positions: trace more of them.")
    padded = pad_paths(paths.select(train), world.numerology.carrier_hz)
    covariance = measure_covariance(world, padded)
    source = SnapshotSource(world, padded, paths.position[train], covariance)
    source.reseed(seed, 0)
    channel = torch.cat([source.batch(index).channel for index in torch.arange(len(train)).split(_CHUNK)])
    return TrainingChannels(world, channel.numpy(), paths.position[train], covariance.numpy())


def save_weights(
    path: str | os.PathLike[str],
    made_of: TrainingChannels,
    *,
    config: Mapping[str, Any] | None = None,
    cloud: Mapping[str, Tensor] | None = None,
    edge: Sequence[Mapping[str, Tensor]] = (),
) -> Path:
    """Write the weights file of a scheme, with what it was made for, and what the channel estimator needs; return it.

    Args:
        path: safetensors file; ``emulate --weights`` takes it.
        made_of: what the scheme was trained on.
        config: the scheme's own configuration, of JSON values: `EdgeSetup.config` and `CloudSetup.config`.
        cloud: tensors of the cloud, `CloudSetup.tensors`.
        edge: for each base station, its tensors, `EdgeSetup.tensors`.

    Raises:
        UserError: there are more base stations in `edge` than sites.
    """
    import torch

    from sim.plan.weights import Weights
    from sim.plan.weights import save_weights as save
    from sim.world.made_for import made_for

    scenario = made_of.scenario
    if len(edge) > scenario.station_count:
        raise UserError(
            f"edge has tensors of {len(edge)} base stations, {scenario.name!r} has {scenario.station_count}."
        )
    tensors: dict[str, torch.Tensor] = {f"cloud.{name}": value for name, value in (cloud or {}).items()}
    for k, own in enumerate(edge):
        tensors |= {f"edge.{k}.{name}": value for name, value in own.items()}
    for k, covariance in enumerate(torch.from_numpy(made_of.covariance)):
        tensors[f"edge.{k}.covariance"] = torch.view_as_real(covariance).clone()
    about = {"scenario": scenario.name, "made_for": made_for(scenario)}
    save(Path(path), Weights({**about, **(config or {})}, tensors))
    return Path(path)


def check_scheme(name: str, **options: Unpack[Options]) -> list[str]:
    """Return a sentence for each thing that the emulator expects of a scheme and that does not hold; [] if all does.

    The scheme runs in process on a few snapshots, several times: with every report, one by one and in batches, and with
    reports that are lost or come in another order.

    Args:
        name: of the scheme; its package must be installed.
        **options: of `cofix.emulate`, such as `weights` or `snapshots` (30 by default).

    Raises:
        UserError: it cannot run at all, or an option is set that the check needs.
    """
    if taken := [each for each in ("scheme", *_OWN) if each in options]:
        raise UserError(f"The check sets {taken[0]} itself.")
    with tempfile.TemporaryDirectory(prefix="cofix-check-") as folder:
        shared: dict[str, Any] = {"scheme": name, "snapshots": 30, "seed": 1, **options}
        return [*_problems(shared | {"output": folder, "driver": "process"} | dict.fromkeys(_LEFT_OUT, False))]


def _problems(shared: dict[str, Any]) -> Iterator[str]:
    from sim.inspect.audit import audit
    from sim.inspect.replay import replay

    whole = emulate(**shared)
    found = {"whole": whole, "again": emulate(**shared), "batches": emulate(**shared, batch=7)}
    if not whole.summary["fixes"]:
        yield f"No snapshot has a fix: {' '.join(whole.summary['notes'])}"
    if _payloads(whole) != _payloads(found["again"]):
        yield "Payloads are others in another run of the same channels: they may depend on setup and channel alone."
    if not _same(whole, found["again"]):
        yield "Fixes are others in another run of the same reports: they may depend on setup and reports alone."
    if not _same(whole, found["batches"]):
        yield "Fixes change by 1 mm or more where snapshots are processed seven at a time."
    found["lossy"] = emulate(**shared, loss="40%")
    mixed = emulate(**shared, jitter="3ms", reorder="50%", interval=100.0)
    if not _same(whole, mixed, used=True):
        yield "Fixes depend on the order in which reports of different base stations arrive."
    for name, run in found.items():
        again = replay(run.folder)
        if again.identical != again.total:
            yield f"Replayed from their reports, {again.total - again.identical} fixes of the run {name!r} are others."
        for finding in audit(run.folder).findings:
            if finding.state == "fails":
                yield f"The audit of the run {name!r}: {finding.name}: {finding.detail}"


def _payloads(run: Run) -> dict[Any, Any]:
    """Return payload and side information of each report."""
    from sim.inspect.replay import logged_reports
    from sim.records.folder import RunFolder
    from sim.records.links import read_ledgers

    return logged_reports(read_ledgers(RunFolder(run.folder)))


def _same(one: Run, other: Run, used: bool = False) -> bool:
    """Return whether two runs have the same fixes to within a millimetre.

    Args:
        one: a run.
        other: a run of the same snapshots.
        used: whether only fixes from the same base stations are compared; else all, and both runs must have them.
    """
    pair = one.fixes.merge(other.fixes, on="snapshot", suffixes=("", "_other"))
    if used:
        pair = pair[[sorted(a) == sorted(b) for a, b in zip(pair["used_bs"], pair["used_bs_other"], strict=True)]]
    elif len(pair) != max(len(one.fixes), len(other.fixes)):
        return False
    gap = [pair[f"{axis}_m"] - pair[f"{axis}_m_other"] for axis in "xyz"]
    return bool(len(pair) == 0 or np.linalg.norm(np.array(gap), axis=0).max() < _SAME_M)

"""Impulse responses between many users and many base stations, synthesised once and stored in half precision.

Shapes: N users, K base stations (in an indoor factory all of them; in a layout scenario those of one layout), A
antennas of the user, L taps. Responses are noise-free in these scenarios, as in the paper (VIn-Loc Sec. 2), and in
units of `CirSet.scale`, which suits the range of half precision: 11 significant bits for each tap.
"""

from __future__ import annotations

import hashlib
import json
import math
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fronthaul.files import whole_file
from sim.errors import UserError
from sim.learn.draws import device_draws
from sim.learn.splits import SplitName, split_positions
from sim.world.channel import Motion, PaddedPaths, Synthesizer, pad_paths, receiver_noise
from sim.world.factory import FactoryLinks, draw_links
from sim.world.paths import PathSet, load_paths
from sim.world.phases import phased
from sim.world.scenario import SPEED_OF_LIGHT, Scenario, scenario_table
from sim.world.store import DATA_FOLDER, load_layouts, require_layouts

_FORMAT = 1
_CHUNK_LINKS = {"cpu": 360, "cuda": 7200}  # a link takes about half a megabyte


@dataclass(frozen=True)
class CirSet:
    """Impulse responses and the positions of their users.

    Attributes:
        cir: (N, K, A, L, 2) float16, real and imaginary part, in units of `scale`.
        site: (N, K, 3) float32 [m]; may be expanded over N.
        present: (N, K) bool: whether the link has any path.
        position: (N, 3) float32 [m].
        scale: root mean square of the taps over present links of the training set's first chunk [amplitude gain].
    """

    cir: Tensor
    site: Tensor
    present: Tensor
    position: Tensor
    scale: float

    def __len__(self) -> int:
        return len(self.position)

    def __getitem__(self, index: Tensor) -> CirSet:
        return CirSet(self.cir[index], self.site[index], self.present[index], self.position[index], self.scale)

    def to(self, device: torch.device) -> CirSet:
        """Move all tensors to a device."""
        tensors = (self.cir, self.site, self.present, self.position)
        cir, site, present, position = (part.to(device) for part in tensors)
        return CirSet(cir, site, present, position, self.scale)

    def response(self) -> Tensor:
        """Return responses (N, K, A, L) complex64 in units of `scale`."""
        return torch.view_as_complex(self.cir.float())


def join(parts: Sequence[CirSet]) -> CirSet:
    """Concatenate sets of the same scale and number of base stations along the users."""
    assert len({part.scale for part in parts}) == 1
    names = ("cir", "site", "present", "position")
    joined = {name: torch.cat([getattr(part, name) for part in parts]) for name in names}
    return CirSet(**joined, scale=parts[0].scale)


def synthesise(
    scenario: Scenario,
    paths: PathSet,
    scale: float | None = None,
    seed: int = 0,
    device: torch.device | None = None,
) -> CirSet:
    """Synthesise the responses of all users of a path set, with the scenario's clock errors, phases and noise.

    Args:
        scenario: scenario with as many sites as the paths have.
        paths: paths of N users and K sites.
        scale: unit [amplitude gain]; None measures it on the first chunk of these responses.
        seed: seed of clock errors and noise.
        device: where to synthesise; the responses stay there.
    """
    device = device or torch.device("cpu")
    present = torch.from_numpy(paths.heard).to(device)
    return _responses(scenario, padded_paths(scenario, paths).to(device), paths.position, present, scale, seed)


def _responses(
    scenario: Scenario,
    padded: PaddedPaths,
    position: npt.NDArray[np.float64],
    present: Tensor,
    scale: float | None,
    seed: int,
) -> CirSet:
    """Synthesise the responses to padded paths of users at `position` (N, 3), on the paths' device."""
    synthesizer = Synthesizer(scenario)
    users, sites, _ = padded.coefficient.shape
    device = padded.coefficient.device
    draw = device_draws(device, seed, "vinloc responses").device
    shape = (users, sites, scenario.csi_shape[1], scenario.numerology.taps, 2)
    made = torch.empty(shape, dtype=torch.float16, device=device)
    first: float | None = scale
    for index in torch.arange(users, device=device).split(max(1, _CHUNK_LINKS[device.type] // sites)):
        motion = Motion.draw(scenario, len(index), draw)
        response = synthesizer.response(padded[index], motion)
        if scenario.link_budget.noise != "none":
            white = torch.randn(*response.shape, 2, generator=draw, device=device)
            unit = scenario.tone_power_w**0.5
            response = response + receiver_noise(scenario, response * unit, white) / unit
        if first is None:  # a unit for storage alone, far from under- and overflow
            heard = response.abs().square().mean((-3, -2, -1))
            first = float(heard[heard > 0].mean().sqrt())
        made[index] = torch.view_as_real(response[:, :, 0] / first).half()
    site = torch.tensor([site.position for site in scenario.sites], dtype=torch.float32, device=device)
    place = torch.from_numpy(position).float().to(device)
    return CirSet(made, site.expand(users, -1, -1), present, place, first if first is not None else 1.0)


def delayed(response: Tensor, delay_s: Tensor, tap_s: float) -> Tensor:
    """Delay responses (B, K, A, L) by (B, K) [s], taps being `tap_s` apart [s]; for training under clock errors.

    Applies a phase ramp to the spectrum of the zero-padded taps. Truncation at the window's ends causes a little
    ringing, so that the result is within a few percent of a new synthesis (tested), at a hundredth of its cost.
    """
    taps = response.shape[-1]
    # Of twice as many taps: what is shifted out does not come in again.
    frequency = torch.fft.fftfreq(2 * taps, device=delay_s.device)
    phase = -2 * math.pi * frequency * (delay_s / tap_s)[..., None, None]
    ramp = torch.polar(torch.ones((), device=phase.device), phase)
    moved: Tensor = torch.fft.ifft(torch.fft.fft(response, 2 * taps) * ramp)[..., :taps]
    return moved


def padded_paths(scenario: Scenario, paths: PathSet) -> PaddedPaths:
    """Return padded paths with phases as the scenario defines them."""
    padded = pad_paths(paths, scenario.numerology.carrier_hz, matrices=scenario.polarized)
    return phased(scenario, padded, range(paths.sites))


Part = Literal["train", "validation", "test"]


@dataclass(frozen=True)
class Users:
    """The three parts of a scenario's users."""

    train: CirSet
    validation: CirSet
    test: CirSet


def load_users(
    scenario: Scenario,
    split: SplitName = "random",
    folder: Path | None = None,
    device: torch.device | None = None,
) -> Users:
    """Return responses of a scenario's training, validation and test users, cached in ``vinloc/`` beside the path data.

    Args:
        scenario: an indoor factory, or a scenario with layouts, whose users are split by layout.
        split: how an indoor factory's users are split.
        folder: folder of the traced or drawn path data; default ``data/NAME``.
        device: where responses that are not cached yet are synthesised; they are returned on the CPU.

    Raises:
        UserError: data are missing, or belong to another version of the scenario.
    """
    folder = folder or DATA_FOLDER / scenario.data_name
    key = _key(scenario, split)
    made: dict[str, CirSet] = {}
    paths: PathSet | None = None
    for part in get_args(Part):
        path = folder / "vinloc" / f"{part}-{key}.npz"
        if not path.is_file():
            scale = made["train"].scale if made else None
            if scenario.layouts is not None:
                found = _of_layouts(scenario, folder / "layouts", part, scale, device)
            else:
                paths = paths or _drawn(scenario, folder)
                chosen = getattr(split_positions(scenario, paths.position, split, paths.user), part)
                found = synthesise(scenario, paths.select(chosen), scale, get_args(Part).index(part), device)
            _save(path, found.to(torch.device("cpu")), key)
        made[part] = _load(path, key)
    return Users(**made)


def is_cached(scenario: Scenario, split: SplitName = "random") -> bool:
    """Return whether `load_users` finds all responses in ``data/NAME/vinloc``."""
    folder, key = DATA_FOLDER / scenario.data_name / "vinloc", _key(scenario, split)
    return all((folder / f"{part}-{key}.npz").is_file() for part in get_args(Part))


def drawn_users(scenario: Scenario, device: torch.device, further: int, split: SplitName = "random") -> Users:
    """Draw an indoor factory's users on a device, instead of loading them: the same ones, and `further` to train on.

    Raises:
        UserError: the scenario is no indoor factory, or its phases are drawn.
    """
    if scenario.factory is None or scenario.phases == "drawn":
        raise UserError(f"Users of scenario {scenario.name!r} cannot be drawn on a device: trace it.")
    links = draw_links(scenario, device, further)
    own = scenario.tracing.positions
    parts = split_positions(scenario, links.position[:own], split)
    train = np.concatenate([parts.train, np.arange(own, own + further)])
    made: dict[str, CirSet] = {}
    for number, (part, chosen) in enumerate(zip(get_args(Part), (train, parts.validation, parts.test), strict=True)):
        scale = made["train"].scale if made else None
        index = torch.from_numpy(chosen).to(device)
        padded = phased(scenario, _padded_links(scenario, links, index), range(len(scenario.sites)))
        present = (padded.coefficient != 0).any(-1)
        made[part] = _responses(scenario, padded, links.position[chosen], present, scale, number)
    if device.type == "cuda":  # drawing takes far more memory than training
        torch.cuda.empty_cache()
    return Users(**made)


def _padded_links(scenario: Scenario, links: FactoryLinks, index: Tensor) -> PaddedPaths:
    """Return the links of some users as `pad_paths` does, but for the order of paths; directions are zero."""
    gain, delay_s = links.gain[index], links.delay_s[index].double()
    turn = -2 * math.pi * torch.remainder(scenario.numerology.carrier_hz * delay_s, 1.0)
    still = torch.zeros((), device=gain.device).expand(*gain.shape, 3)  # antennas are isotropic, users stand still
    distance = (delay_s * SPEED_OF_LIGHT).float()
    return PaddedPaths(gain * torch.polar(torch.ones_like(distance), turn.float()), distance, still, still)


def _key(scenario: Scenario, split: SplitName) -> str:
    """Return a digest of everything that responses depend on."""
    table = scenario_table(scenario)
    names = ("numerology", "array", "user_array", "link_budget", "clock", "splits", "phases")
    parts = {name: table[name] for name in names}
    if scenario.layouts is not None:
        parts["layouts"] = table["layouts"]
    whole = {**parts, "split": split, "paths": scenario.tracing_digest(), "format": _FORMAT}
    return hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()[:12]


def _drawn(scenario: Scenario, folder: Path) -> PathSet:
    paths = load_paths(folder / "paths.npz")
    if paths.digest != scenario.tracing_digest():
        raise UserError(f"{folder} holds another version of scenario {scenario.name!r}: trace it again.")
    return paths


def _of_layouts(
    scenario: Scenario, folder: Path, part: Part, scale: float | None, device: torch.device | None
) -> CirSet:
    layouts = require_layouts(scenario)
    parts: list[CirSet] = []
    count = {"train": layouts.training, "validation": layouts.validation, "test": layouts.test}[part]
    for number, (site, paths) in enumerate(load_layouts(folder, part, count)):
        if paths.digest != scenario.tracing_digest():
            raise UserError(f"{folder} holds another version of scenario {scenario.name!r}: trace it again.")
        parts.append(synthesise(scenario.at_layout(site), paths, scale, number, device))
        scale = parts[0].scale
    return join(parts)


def _save(path: Path, users: CirSet, key: str) -> None:
    with whole_file(path) as temporary, temporary.open("wb") as file:
        np.savez(
            file, cir=users.cir.numpy(), site=users.site.numpy(), present=users.present.numpy(),
            position=users.position.numpy(), scale=users.scale, made_for=key,
        )  # fmt: skip


def _load(path: Path, key: str) -> CirSet:
    """Read responses; those of files older than the entry ``made_for`` are what the file's name says.

    Raises:
        UserError: the file is damaged, or its responses were made for something else.
    """
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            tensors = {name: torch.from_numpy(archive[name]) for name in ("cir", "site", "present", "position")}
            found = CirSet(**tensors, scale=float(archive["scale"]))
            made_for = str(archive["made_for"]) if "made_for" in archive else key
    except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"{path} is damaged ({error}); remove it, it will be made again.") from error
    if made_for != key:
        raise UserError(f"{path} was made for another scenario; remove it, it will be made again.")
    return found

"""DiffLoc's computation alone, from fingerprints in memory to the fix: seven base stations, two steps of CT.

    fingerprint ── embed (38 400 → 64) ──> embedding ── answer, each step ──> cloud's step ──> position

No packing, no links, no quantisation. "In turn" runs one network after the other, as base stations that share a
machine would; "stacked" runs all seven as one network of batched products, as a cloud with all fingerprints would, also
on a GPU if present. Batch: number of snapshots processed at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor

from benchmarks.timing import Bench, Case, Row, measure
from cloud.fusion.diffloc_spec import DiffLocSpec, Floats
from cloud.fusion.scores.sampler import Sampler
from edge.estimation import LeastSquaresEstimator
from edge.fingerprint import fingerprint
from edge.score_network import Denoiser, build_network
from edge.score_station import ScoreStation
from fronthaul.payload.diffloc import ScoreFormat, score_format
from fronthaul.payload.noise_levels import Level
from sim.arithmetic import fixed_arithmetic
from sim.errors import UserError
from sim.plan.plan import Plan, load_plan
from sim.plan.settings import EmulateSettings

SCENARIO, STATIONS, BITS, STEPS = "paris-7", 7, 8, 2
BATCHES = (1, 32)
THREADS = 2
NO_GPU = "diffloc: no GPU here, its rows are left out"


class InTurn:
    """Networks of all base stations, run one after the other."""

    def __init__(self, made: Plan, score: ScoreFormat, features: Tensor, device: str) -> None:
        """Build the networks; features (K, B, F) are moved to `device`."""
        setups = [site.station.setup for site in made.sites]
        self.stations = [ScoreStation(score, setup.config, setup.tensors, setup.bs, device) for setup in setups]
        self._features = features.to(device)

    @torch.inference_mode()
    def embed_one(self, k: int) -> Tensor:
        """Return embeddings (B, E) of one base station."""
        found: Tensor = self.stations[k].network.embed(self._features[k : k + 1])[0]
        return found

    def embed(self) -> list[Tensor]:
        """Return embeddings of all base stations."""
        return [self.embed_one(k) for k in range(len(self.stations))]

    def answer(self, embeddings: Sequence[Tensor], x: Floats, level: Level) -> list[Floats]:
        """Return each network's output (B, D) at states x (B, D)."""
        return [one.raw(e, x, level) for one, e in zip(self.stations, embeddings, strict=True)]


class Stacked:
    """All networks as one network of batched products."""

    def __init__(self, made: Plan, features: Tensor, device: str) -> None:
        """Build the network; features (K, B, F) are moved to `device`."""
        setups = [site.station.setup for site in made.sites]
        self._network = build_network(setups[0].config, [setup.tensors for setup in setups]).to(device)
        self._denoiser = Denoiser(self._network, setups[0].config["sampler"])
        self._features, self._device = features.to(device), device

    @torch.inference_mode()
    def embed(self) -> Tensor:
        """Return embeddings (K, B, E)."""
        return self._network.embed(self._features)

    @torch.inference_mode()
    def answer(self, embeddings: Tensor, x: Floats, level: Level) -> list[Floats]:
        """Return each network's output (B, D) at states x (B, D); this waits for the device."""
        states = torch.from_numpy(x.astype(np.float32)).to(self._device).expand(len(embeddings), -1, -1)
        return list(self._denoiser.raw(embeddings, states, level).cpu().numpy().astype(np.float64))


class Desk:
    """Networks and cloud that compute fixes of `batch` snapshots at once: each is a particle of one sampler.

    Attributes:
        states: first states (B, D) of the sampler.
        levels: noise levels of its steps.
        in_turn: networks one after the other.
        stacked: all networks at once.
    """

    def __init__(self, made: Plan, batch: int, device: str = "cpu") -> None:
        """Build networks and cloud, and compute fingerprints."""
        config = made.weights.config
        score = score_format(config, {"steps": STEPS, "fusion": "gauss", "particles": batch}, BITS)
        self._cloud = DiffLocSpec(made.cloud.setup, score)
        self._posteriors = list(self._cloud.posteriors.values())
        features = torch.stack([_fingerprints(made, k, batch) for k in range(len(made.sites))])
        self.states = self._cloud.sampler(0).x  # the first (B, D)
        self.levels = score.levels
        self.in_turn = InTurn(made, score, features, device)
        self.stacked = Stacked(made, features, device)

    def fix(self, networks: InTurn | Stacked) -> Floats:
        """Return normalised positions (B, D)."""
        embeddings = networks.embed()
        return self._sampled(lambda sampler: networks.answer(embeddings, sampler.x, sampler.level))  # type: ignore[arg-type]

    def cloud(self, said: list[Floats]) -> Floats:
        """Run the cloud's steps alone, with the same answers (K, B, D) in each; return positions (B, D)."""
        return self._sampled(lambda _: said)

    def one_network(self) -> None:
        """Embed at one base station and evaluate its network at each level, as the paper's figure counts it."""
        embedding, station = self.in_turn.embed_one(0), self.in_turn.stations[0]
        for level in self.levels:
            station.raw(embedding, self.states, level)

    def _sampled(self, answers: Callable[[Sampler], list[Floats]]) -> Floats:
        sampler = self._cloud.sampler(0)
        while not sampler.done:
            said = [(raw, None) for raw in answers(sampler)]
            sampler.advance(self._cloud.answers(sampler, said, self._posteriors))
        return sampler.position


def run(bench: Bench) -> list[Row]:
    """Measure the time per snapshot at each batch size."""
    made = load_plan(
        EmulateSettings(
            scenario=SCENARIO,
            scheme="diffloc",
            bs=STATIONS,
            bits=BITS,
            snapshots=max(BATCHES),
            driver="process",
            interval_ms=0.0,
            output=bench.folder / "runs",
        )
    )
    cases = [case for batch in BATCHES for case in _cases(Desk(made, batch), batch)]
    if torch.cuda.is_available():
        cases += [case for batch in BATCHES for case in _gpu_cases(Desk(made, batch, "cuda"), batch)]
    else:
        print(NO_GPU)
    return measure(cases, bench.effort)


def require_same(one: Floats, other: Floats) -> None:
    """Check that two ways of computing fixes agree, to within 1e-4 of the normalised unit (1 cm).

    Raises:
        UserError: they do not, so their times are not comparable.
    """
    apart = float(np.abs(one - other).max())
    if not apart <= 1e-4:
        raise UserError(f"Networks in turn and stacked disagree: their fixes are up to {apart:g} units apart.")


def _cases(desk: Desk, batch: int) -> list[Case]:
    require_same(desk.fix(desk.in_turn), desk.fix(desk.stacked))
    whole, about = _name("fix, in turn", batch), partial(_name, batch=batch)
    first = _name("fix, in turn", BATCHES[0])
    embeddings = desk.in_turn.embed()
    said = desk.in_turn.answer(embeddings, desk.states, desk.levels[0])
    answer = partial(desk.in_turn.stations[0].raw, embeddings[0], desk.states, desk.levels[0])
    in_turn, stacked = partial(desk.fix, desk.in_turn), partial(desk.fix, desk.stacked)
    return [
        Case(about("embed, one BS"), partial(desk.in_turn.embed_one, 0), batch, whole),
        Case(about("answer of a step, one BS"), answer, batch, whole),
        Case(about("cloud, both steps"), partial(desk.cloud, said), batch, whole),
        Case(about("one network, two passes"), desk.one_network, batch, whole),
        Case(whole, in_turn, batch, None if whole == first else first),
        Case(about(f"fix, in turn, {THREADS} threads"), partial(_threaded, in_turn), batch, whole),
        Case(about("fix, stacked"), stacked, batch, whole),
        Case(about(f"fix, stacked, {THREADS} threads"), partial(_threaded, stacked), batch, whole),
    ]


def _gpu_cases(desk: Desk, batch: int) -> list[Case]:
    """Return cases with one network and with all on the GPU; the cloud's steps stay on the CPU."""
    whole = _name("fix, in turn", batch)
    return [
        Case(_name("one network, two passes, GPU", batch), desk.one_network, batch, whole),
        Case(_name("fix, stacked, GPU", batch), partial(desk.fix, desk.stacked), batch, whole),
    ]


def _name(what: str, batch: int) -> str:
    return f"{what}, batch {batch}"


def _threaded(call: Callable[[], object]) -> None:
    with fixed_arithmetic(THREADS):
        call()


@torch.inference_mode()
def _fingerprints(made: Plan, k: int, batch: int) -> Tensor:
    """Return fingerprints (B, F) of the first test positions at one base station."""
    site = made.sites[k]
    received = torch.stack([site.radio.observe(snapshot) for snapshot in range(batch)])
    return fingerprint(LeastSquaresEstimator(site.station.power_w, site.station.pilots).estimate(received))

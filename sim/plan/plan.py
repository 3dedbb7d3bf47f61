"""Build the parts of a run from its settings: one part per site, one for the cloud, and the true positions.

This is the only place where user positions are separated from everything else: `Plan.sites` and `Plan.cloud` go to the
nodes and contain no positions, `Plan.truth` stays with the driver.
"""

from __future__ import annotations

import contextlib
import math
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from cloud.cloud_spec import CloudSpec
from cloud.collector import CollectorRules
from cloud.fusion.scheme import CloudSetup, Fusion, OneRound, as_fusion, load_fusion
from edge.base_station import BaseStation, StationSpec
from edge.schedule import Schedule
from edge.scheme import Chosen, EdgeScheme, EdgeSetup, load_edge_scheme, weights_scheme
from edge.site import SiteSpec
from fronthaul.draws import generator
from fronthaul.link.link_model import LinkConfig
from fronthaul.message.messages import Direction, PayloadFormat
from fronthaul.payload.choice import PayloadChoice
from sim.arithmetic import fixed_arithmetic
from sim.errors import UserError
from sim.plan.scheme_options import known_spec, scheme_options
from sim.plan.settings import EmulateSettings
from sim.plan.weights import Weights, find_weights, load_weights
from sim.plan.wrong_map import wrong_map
from sim.world.channel import PaddedPaths, pad_paths, scenario_pilots, silence_w
from sim.world.made_for import PLACE, differences
from sim.world.paths import PathSet, load_paths
from sim.world.phases import phased
from sim.world.pilot_store import PilotStore
from sim.world.radio import Radio
from sim.world.scenario import Scenario, Site, load_scenario
from sim.world.store import load_test_layout, load_test_paths, load_training_positions

SILENT_PINGS = 3
"""Heartbeat timeout: a base station that misses this many heartbeats is no longer waited for."""

Positions = npt.NDArray[np.float64]

_UNFIT = (ArithmeticError, AttributeError, LookupError, MemoryError, RuntimeError, TypeError, ValueError)
"""What building a scheme from the configuration and tensors of other weights may raise."""


@dataclass(frozen=True)
class Plan:
    """All parts of a run.

    Attributes:
        settings: settings of the run.
        scenario: resolved scenario.
        weights_path: file of the weights.
        weights_digest: digest of its content.
        format: payload format of every BS's reports in round 0.
        answer_format: payload format of its answers in later rounds; None if a fix takes one round.
        sites: specification of each site, in the order of BSs.
        cloud: specification of the cloud.
        truth: positions of the N test users (N, 3) [m]; snapshot n belongs to user n mod N.
        training: positions that the weights were trained on (P, 3) [m], if known.
        paths: paths of the N test users; for the controls, at the driver only.
        weights: weights as read; for the controls.
        chosen: name of the fusion rule, and the resolved options of the scheme.
    """

    settings: EmulateSettings
    scenario: Scenario
    weights_path: Path
    weights_digest: str
    format: PayloadFormat
    answer_format: PayloadFormat | None
    sites: list[SiteSpec]
    cloud: CloudSpec
    truth: Positions
    training: Positions | None
    paths: PathSet
    weights: Weights
    chosen: Chosen

    @property
    def stations(self) -> range:
        """Numbers of the base stations."""
        return self.settings.stations(self.scenario)

    def schedule(self, t0_ns: int) -> Schedule:
        """Return the schedule of a run whose snapshot 0 is due at `t0_ns` [ns]."""
        settings = self.settings
        return Schedule(t0_ns, settings.interval_ns, settings.snapshots, settings.batch)


@fixed_arithmetic()
def load_plan(settings: EmulateSettings, store: PilotStore | None = None) -> Plan:
    """Read everything that a run needs; a run in process takes pilots from `store`, and adds to it.

    Raises:
        UserError: a file is missing or does not fit the scenario, or the scheme is unknown, or the weights were made
            for another place and the settings do not force it.
    """
    scenario = load_scenario(settings.scenario)
    settings.require_fits(scenario)
    if scenario.layouts is not None:
        settings = replace(settings, layout=settings.layout or 0)
    for load in (load_edge_scheme, load_fusion):  # check the scheme before looking for its weights
        _known(load, settings.scheme)
    scheme_options(settings)
    source, obtained = weights_scheme(settings.scheme), known_spec(settings.scheme).obtained
    path = settings.weights or find_weights(scenario.data_name, source, settings.bits, obtained)
    weights = load_weights(path)
    scenario, paths = load_test_set(scenario, settings)
    return compose(
        settings,
        scenario,
        paths,
        weights,
        weights_path=path,
        training=load_training_positions(scenario, settings.test),
        store=store,
    )


def load_test_set(
    scenario: Scenario, settings: EmulateSettings, read: Callable[[Path], PathSet] = load_paths
) -> tuple[Scenario, PathSet]:
    """Read the test positions: their paths, and the scenario with the sites of these paths.

    `read`: see `load_test_paths`.

    Raises:
        UserError: a file is missing, damaged, or of another version of the scenario.
    """
    if scenario.layouts is None:
        return scenario, load_test_paths(scenario, settings.test, read)
    return load_test_layout(scenario, settings.layout or 0)


def compose(
    settings: EmulateSettings,
    scenario: Scenario,
    paths: PathSet,
    weights: Weights,
    *,
    weights_path: Path = Path(),
    training: Positions | None = None,
    store: PilotStore | None = None,
) -> Plan:
    """Build the parts of a run from what `load_plan` has read.

    Raises:
        UserError: the paths have no users or too few sites, the scheme is unknown or does not take the options, or the
            weights do not fit it, or were made for another place and the settings do not force it.
    """
    if not settings.force:
        require_made_for(weights, weights_path, scenario)
    stations = settings.stations(scenario)
    if len(paths) == 0 or paths.sites < len(stations):
        raise UserError(f"The test paths hold {len(paths)} users and {paths.sites} sites; trace them again.")
    if settings.track:
        require_walks(scenario, paths)
    users = np.arange(min(len(paths), settings.snapshots))
    heard = users
    if settings.shuffle_csi:
        order = generator(settings.seed, "shuffle").permutation(users)
        heard = np.empty_like(users)
        heard[order] = np.roll(order, 1)  # one cycle: no user keeps their own channel
    padded = padded_paths(scenario, paths.select(heard, stations))
    build = _known(load_edge_scheme, settings.scheme)
    store = store if settings.driver == "process" else None
    sites = [_site_parts(settings, scenario, weights, build, padded, bs, scenario.sites[bs], store) for bs in stations]
    try:  # rehearse one report here rather than in an actor, for a clear error
        cloud = cloud_parts(settings, scenario, weights)
        station, fusion, chosen = _halves(sites[0], cloud)
        rehearsal = tuple(station.reports([0], sites[0].radio.observe(0)[None]))
        fusion.open(0).advance(rehearsal)
    except _UNFIT as error:
        why = f"no {error}" if isinstance(error, KeyError) else textwrap.shorten(str(error), 300, placeholder=" …")
        raise UserError(
            f"The weights{_named(weights_path)} do not fit scheme {settings.scheme!r} with {settings.payload.words}: "
            f"{why}."
        ) from error
    return Plan(
        settings=settings,
        scenario=scenario,
        weights_path=weights_path,
        weights_digest=weights.digest,
        format=station.format,
        answer_format=station.answer_format,
        sites=sites,
        cloud=replace(cloud, rehearsal=rehearsal, report=station.format, answer=station.answer_format),
        truth=paths.position[users],
        training=training,
        paths=paths.select(users),
        weights=weights,
        chosen=chosen,
    )


def require_walks(scenario: Scenario, paths: PathSet) -> None:
    """Check that the test positions are whole walks, each in the order of time.

    Raises:
        UserError: they are not.
    """
    if scenario.walk is None or not len(paths.user):
        raise UserError(f"--track is for users on walks; scenario {scenario.name!r} has none: add a [walk] table.")
    steps = scenario.walk.snapshots
    begins = paths.user[::steps]
    if len(np.unique(begins)) < len(begins) or not np.array_equal(np.repeat(begins, steps), paths.user):
        raise UserError(
            f"--track needs whole walks of {steps} snapshots, and these test positions are parts of walks: give the "
            "user split, --test test-user.npz in the folder of the scenario's traced data."
        )


def padded_paths(scenario: Scenario, paths: PathSet) -> PaddedPaths:
    """Return the paths to the scenario's first sites in `Radio`'s form, with the scenario's choice of phases."""
    padded = pad_paths(paths, scenario.numerology.carrier_hz, matrices=scenario.polarized)
    padded = phased(scenario, padded, range(paths.sites))
    return padded


def _halves(site: SiteSpec, cloud: CloudSpec) -> tuple[BaseStation, Fusion, Chosen]:
    """Build both halves of a scheme and resolve its options.

    Raises:
        UserError: the scheme rejects its options, or only one of the halves takes several rounds.
    """
    spec, setup = known_spec(cloud.scheme), site.station.setup
    with _refusals(cloud.scheme) if spec.options is not None else contextlib.nullcontext():
        station, fusion = site.station.assemble(), as_fusion(cloud.build(cloud.setup))
    if isinstance(fusion, OneRound) != (station.answer_format is None):
        raise UserError(f"Scheme {cloud.scheme!r} cannot run: one of its halves takes one round, the other several.")
    return station, fusion, spec.chosen(setup) if spec.chosen else Chosen(cloud.scheme, setup.options)


@contextlib.contextmanager
def _refusals(scheme: str) -> Iterator[None]:
    """Raise a scheme's ValueError about its options as a UserError with the same message."""
    try:
        yield
    except ValueError as error:
        raise UserError(f"Scheme {scheme!r} cannot run: {str(error).removesuffix('.')}.") from error


def weights_notes(plan: Plan) -> list[str]:
    """Return one sentence for each difference between the run and what its weights were trained for."""
    config, settings = plan.weights.config, plan.settings
    found = differences(plan.weights.made_for, plan.scenario)
    notes = [f"The weights were trained for {difference}." for difference in found.values()]
    if mismatch := plan.scenario.mismatch.words():
        notes.append(f"The world is not as the scenario, maps and weights have it: {'; '.join(mismatch)}.")
    trained = PayloadChoice(config.get("bits", settings.bits))
    if trained.bits != settings.bits:
        notes.append(f"The weights were trained for {trained.words}, the run sends {settings.payload.words}.")
    return notes


def require_made_for(weights: Weights, path: Path, scenario: Scenario) -> None:
    """Check that weights were trained at the scenario's sites, for channels of its shape.

    Raises:
        UserError: they were not.
    """
    found = differences(weights.made_for, scenario, PLACE)
    if found:
        raise UserError(
            f"The weights{_named(path)} were trained for {'; for '.join(found.values())}: train weights for scenario "
            f"{scenario.name!r}, or run with these by --force."
        )


def _named(path: Path) -> str:
    """Return the path as a sentence names it; nothing for weights that are in no file."""
    return "" if path == Path() else f" {path}"


def cloud_parts(settings: EmulateSettings, scenario: Scenario, weights: Weights) -> CloudSpec:
    """Build the specification of the cloud.

    Raises:
        UserError: the scheme is unknown or does not take the options.
    """
    stations = {bs: scenario.sites[bs].position for bs in settings.stations(scenario)}
    return CloudSpec(
        scheme=settings.scheme,
        build=_known(load_fusion, settings.scheme),
        setup=CloudSetup(
            stations,
            settings.payload,
            weights.config,
            wrong_map(weights.cloud(), scenario.mismatch),
            settings.seed,
            options=scheme_options(settings),
            networks=_networks(settings, weights, stations),
        ),
        rules=CollectorRules(
            stations=frozenset(stations),
            snapshots=settings.snapshots,
            interval_ns=settings.interval_ns,
            deadline_ns=settings.deadline_ns,
            round_ns=settings.round_ns,
            minimum_bs=settings.minimum_bs,
            roster=settings.roster(scenario),
        ),
        bundle=settings.bundle,
        compact=settings.compact,
        batch=settings.batch,
        down=_down_links(settings, stations),
        seed=settings.seed,
        silence_ns=SILENT_PINGS * settings.ping_ns,
    )


def _networks(
    settings: EmulateSettings, weights: Weights, stations: Mapping[int, tuple[float, float, float]]
) -> dict[int, Callable[[str], Any]]:
    """Return factories of each base station's network at the cloud, if the scheme has any there."""
    at_cloud = known_spec(settings.scheme).at_cloud
    if at_cloud is None:
        return {}
    with _refusals(settings.scheme):
        made = {bs: at_cloud(edge_setup(settings, weights, bs, site)) for bs, site in stations.items()}
    return {bs: make for bs, make in made.items() if make is not None}


def _down_links(settings: EmulateSettings, stations: Iterable[int]) -> dict[int, LinkConfig]:
    configs = {bs: _modelled(settings, bs, Direction.DOWN) for bs in stations}
    return {bs: config for bs, config in configs.items() if config is not None}


def _modelled(settings: EmulateSettings, bs: int, direction: Direction) -> LinkConfig | None:
    """Return the link model's configuration; None if the kernel shapes the link instead."""
    return None if settings.netns else settings.links.config(bs, direction)


def _site_parts(
    settings: EmulateSettings,
    scenario: Scenario,
    weights: Weights,
    build: Callable[[EdgeSetup], EdgeScheme],
    paths: PaddedPaths,
    bs: int,
    site: Site,
    store: PilotStore | None,
) -> SiteSpec:
    station = StationSpec(
        bs=bs,
        epoch=0,
        build=build,
        setup=edge_setup(settings, weights, bs, site.position),
        covariance=_covariance(weights, bs),
        noise_w=scenario.tone_noise_w,
        power_w=scenario.tone_power_w,
        pilots=scenario_pilots(scenario),
        silence_w=silence_w(scenario),
    )
    # A contiguous copy: a view would send the paths of all sites to the actor.
    own = paths.site(bs)
    radio = Radio(scenario, own.clone(), bs, settings.seed, store)
    orientation = (math.radians(site.yaw_deg), math.radians(site.pitch_deg), 0.0)
    return SiteSpec(
        station,
        radio,
        site.position,
        orientation,
        up=_modelled(settings, bs, Direction.UP),
        seed=settings.seed,
        bundle=settings.bundle,
        compact=settings.compact,
        ping_ns=settings.ping_ns,
        capture=settings.capture,
        closed_loop=not settings.interval_ns,
        roster=settings.roster(scenario),
    )


def edge_setup(settings: EmulateSettings, weights: Weights, bs: int, site: tuple[float, float, float]) -> EdgeSetup:
    """Return what the scheme of base station `bs`, whose array is at `site` [m], is built from."""
    return EdgeSetup(
        bs,
        settings.payload,
        weights.config,
        weights.edge(bs),
        site=site,
        options=scheme_options(settings),
    )


def _covariance(weights: Weights, bs: int) -> Tensor | None:
    """Return the channel covariance for a base station's estimator; None if the weights ask for least squares."""
    tensors = weights.edge(bs)
    if weights.config.get("estimator") == "ls":
        if not tensors:
            raise UserError(f"The weights hold nothing of base station {bs}: they were trained for fewer sites.")
        return None
    if (stored := tensors.get("covariance")) is None:
        raise UserError(f"The weights hold no covariance of site {bs}: they were trained for fewer sites.")
    return torch.view_as_complex(stored.float().contiguous())


def _known(load: Callable[[str], Any], scheme: str) -> Any:
    """Load an entry point, raising its LookupError as a UserError."""
    try:
        return load(scheme)
    except LookupError as error:
        raise UserError(str(error.args[0])) from error

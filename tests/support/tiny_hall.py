"""The factory hall with six sites and straight paths, few users, and a street of a few layouts: data and trainings."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import straight_world

from sim.learn.splits import write_test_set
from sim.learn.vinloc import jobs
from sim.learn.vinloc.jobs import Job
from sim.learn.vinloc.resnet_train import ResNetJob
from sim.learn.vinloc.train import Schedule
from sim.toml.write import toml_text
from sim.world import store
from sim.world.scenario import Scenario, load_scenario, scenario_table

USERS, SITES, KEPT = 150, 6, 4
QUICK = Schedule(epochs=1, batch=40, warmup_steps=1, subset=(KEPT,), half=False)


def scenario() -> Scenario:
    """inf-dh-18 with its first six sites."""
    hall = load_scenario("inf-dh-18")
    splits = dataclasses.replace(hall.splits, test=24, validation=20)
    tracing = dataclasses.replace(hall.tracing, positions=USERS)
    return dataclasses.replace(hall, name="tiny-hall", sites=hall.sites[:SITES], splits=splits, tracing=tracing)


def street() -> Scenario:
    """paris-street-12 with four sites a layout, of which training layouts have six."""
    wide = load_scenario("paris-street-12")
    made = dataclasses.replace(wide.layouts, sites=4, places=6, training=3, validation=1, test=2, users=15)  # type: ignore[type-var]
    return dataclasses.replace(wide, name="tiny-street", layouts=made)


def write(folder: Path) -> dict[str, str]:
    """Write scenarios and their data below `folder`, the working directory; return their files by name."""
    files = {}
    hall, wide = scenario(), street()
    variants = [dataclasses.replace(hall, name=f"tiny-{n}", phases=n, data="tiny-hall") for n in ("drawn", "initial")]
    for one in (hall, *variants, wide):
        files[one.name] = str(folder / f"{one.name}.toml")
        Path(files[one.name]).write_text(toml_text(scenario_table(one)))
    paths = straight_world.trace(hall, straight_world.positions(hall, USERS))
    paths.save(Path("data/tiny-hall/paths.npz"))
    write_test_set(hall, paths, Path("data/tiny-hall"))
    _write_layouts(wide, Path("data/tiny-street/layouts"))
    return files


def _write_layouts(wide: Scenario, folder: Path) -> None:
    assert wide.layouts is not None
    draw, sites = np.random.default_rng(3), {}
    counts = {"train": wide.layouts.training, "validation": wide.layouts.validation, "test": wide.layouts.test}
    for part, count in counts.items():
        places = wide.layouts.places if part == "train" else wide.layouts.sites
        sites[part] = draw.uniform((0, -150, 15), (220, -10, 25), (count, places, 3))
        for number, site in enumerate(sites[part]):
            users = straight_world.positions(wide, wide.layouts.users, seed=number)
            paths = straight_world.trace(wide.at_layout(site), users)
            dataclasses.replace(paths, digest=wide.tracing_digest()).save(folder / store.layout_file(part, number))  # type: ignore[arg-type]
    store.save_arrays(folder / store.SITES_FILE, digest=np.array(wide.tracing_digest()), **sites)


def trainings(files: dict[str, str], patch: pytest.MonkeyPatch) -> tuple[dict[str, Job], dict[str, ResNetJob]]:
    """All jobs, next to no steps each, on the tiny scenarios."""
    place = {"inf-dh-18": "tiny-hall", "inf-dh-18-initial": "tiny-initial", "paris-street-12": "tiny-street"}
    own = {}
    for job in jobs.JOBS.values():
        where = files[place.get(job.scenario, "tiny-street")]
        schedule = dataclasses.replace(QUICK, sync_ns=job.schedule.sync_ns)
        further = None if job.further is None else 10
        own[job.name] = dataclasses.replace(job, scenario=where, width=32, schedule=schedule, further=further)
    patch.setattr(jobs, "JOBS", own)
    resnets = {
        f"resnet-{name}": ResNetJob(f"resnet-{name}", files["tiny-hall"], filling, schedule)
        for name, filling, schedule in (
            ("fixed", "rows", dataclasses.replace(QUICK, subset=(SITES,))),
            ("rows", "rows", QUICK),
            ("packed", "packed", QUICK),
            ("shuffled", "shuffled", QUICK),
            ("short-fixed", "rows", dataclasses.replace(QUICK, subset=(SITES,))),
            ("short-rows", "rows", QUICK),
        )
    }
    return own, resnets

"""What every test shares: torch's one thread, the tiny world, and which tests are quick or have the machine alone."""

import gc
from collections.abc import Iterator, Sequence
from pathlib import Path

import fuzzing
import hypothesis
import pytest
import tiny_world
import torch
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

from sim.plan.settings import EmulateSettings
from sim.world import store

# The same bits on every machine, and tests that share a small one fairly.
torch.set_num_threads(1)

# A time limit on an example would only test how busy the machine is.
hypothesis.settings.register_profile(
    "suite", hypothesis.settings(max_examples=fuzzing.TIMES * hypothesis.settings.default.max_examples), deadline=None
)
hypothesis.settings.load_profile("suite")

TESTS = Path(__file__).parent
SHIPPED = store.ASSET_FOLDER
QUICK = (
    "cloud",
    "edge",
    "fronthaul",
    "sim/plan",
    "sim/records",
    "sim/test_files.py",
    "sim/world",
    "test_architecture.py",
)
"""Where tests compute: no sockets, no traced scenes, hardly a process of their own."""
NOT_QUICK = (
    *("fronthaul/transport", "sim/records/test_coverage.py", "sim/records/test_links.py"),
    *("sim/world/test_factory.py", "sim/world/test_layouts.py", "sim/world/test_llvm.py"),
    *("sim/world/test_sionna_rt.py", "sim/world/test_trace_factory.py", "sim/world/test_tracer.py"),
    # These compute, but for five seconds or more in all.
    *("cloud/fusion/scores/test_mixture.py", "fronthaul/link/test_link_model.py", "sim/plan/test_settings.py"),
    "sim/world/test_bound.py",
)
"""What does otherwise there, or takes too long for a loop of a minute."""
MACHINE = (
    *(
        "end_to_end/test_attacks.py",
        "end_to_end/test_diffloc_emulated.py",
        "end_to_end/test_hosts.py",
        "end_to_end/test_interrupted.py",
    ),
    *("end_to_end/test_intruders.py", "end_to_end/test_many.py", "end_to_end/test_restart.py"),
    *(
        "end_to_end/test_own_lengths.py",
        "end_to_end/test_shadowed_names.py",
        "end_to_end/test_vinloc_registration.py",
        "fronthaul/transport",
        "sim/emulate/test_cluster.py",
        "sim/emulate/test_ray_driver.py",
        "sim/emulate/test_ray_forks.py",
    ),
    *("sim/kernel/test_namespaces.py", "sim/reproduce/vinloc/test_lost.py", "sim/test_cores.py", "test_benchmarks.py"),
)
"""What keeps to a clock, counts in the kernel, or takes several cores, as Ray does: one after the other."""


def lies_in(path: Path, places: Sequence[str]) -> bool:
    """Whether a path is, or lies in, one of the files or folders."""
    return any(path.is_relative_to(TESTS / place) for place in places)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        apart = any(map(item.get_closest_marker, ("ray", "slow", "gpu"))) or lies_in(item.path, NOT_QUICK)
        if lies_in(item.path, QUICK) and not apart:
            item.add_marker("quick")
    if hasattr(config, "workerinput"):  # what takes longest first, so that workers end together
        items.sort(key=lambda item: (not lies_in(item.path, MACHINE), bool(item.get_closest_marker("quick"))))


class ByModule(LoadScopeScheduling):
    """One worker runs a module's tests, which share fixtures, and one all those that want the machine to themselves."""

    def _split_scope(self, nodeid: str) -> str:
        module = nodeid.split("::")[0]
        return "machine" if lies_in(TESTS.parent / module, MACHINE) else module


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> ByModule:
    return ByModule(config, log)


@pytest.fixture(scope="module", autouse=True)
def leaks_are_told_where_they_are() -> Iterator[None]:
    """Begin each module with the shipped files, whatever others have put into their place, and end it without garbage.

    So a file left open is told as its module's error, not as one of whatever runs later. What outlives a module is
    not looked at again, which would take seconds each time.
    """
    store.ASSET_FOLDER = SHIPPED
    yield
    gc.collect()
    gc.freeze()


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> EmulateSettings:
    """A short run in process, in a tiny world."""
    monkeypatch.setattr(store, "ASSET_FOLDER", tmp_path / "assets")
    return tiny_world.write(tmp_path)

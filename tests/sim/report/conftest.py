"""A run that loses reports and a browser, for all tests of pages."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import browser
import pytest
import tiny_world

from fronthaul.link.link_file import LinkPlan, with_options
from sim.emulate.emulator import emulate
from sim.plan.settings import EmulateSettings
from sim.world import store


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmulateSettings]:
    """A tiny world whose links lose reports and bring others late."""
    folder = tmp_path_factory.mktemp("report")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store, "ASSET_FOLDER", folder / "assets")
        settings = tiny_world.write(folder)
        links = with_options(LinkPlan(), {"loss": "30%", "delay": "2ms", "jitter": "2ms"})
        yield dataclasses.replace(
            settings,
            links=links,
            deadline_ms=4.5,
            interval_ms=5.0,
            controls=True,
            report=True,
            minimum_bs=2,
            snapshots=48,
        )


@pytest.fixture(scope="module")
def run(world: EmulateSettings) -> Path:
    return emulate(world).folder


@pytest.fixture(scope="package")
def tab() -> Iterator[browser.Page]:
    with browser.browser() as opened:
        yield opened

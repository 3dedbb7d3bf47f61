"""Options, a scenario and a part at the cloud, of a scheme that is nobody's here."""

import dataclasses
import functools
import json
import pickle
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import EntryPoint
from typing import Any

import pytest
from torch import Tensor

import cli
from cloud.fusion.scheme import CloudSetup, Fix
from edge.scheme import Chosen, EdgeBuilder, EdgeSetup, Encoded, SchemeSpec
from fronthaul.message.messages import Payload, PayloadFormat, Report
from fronthaul.payload.choice import PayloadChoice
from sim.emulate.emulator import emulate
from sim.errors import UserError
from sim.inspect.replay import replay
from sim.plan.options import scenario_of
from sim.plan.settings import EmulateSettings


class OwnEdge:
    name, format = "own", PayloadFormat(4)

    def __init__(self, setup: EdgeSetup) -> None:
        assert setup.payload.forward == str(setup.options.get("asked", "complex64"))
        if int(setup.options.get("level", 0)) > 15:
            raise ValueError("levels are 0 to 15.")
        self.level = int(setup.options.get("level", 3))

    def encode(self, channel: Tensor) -> Encoded:
        return Encoded(len(channel) * [Payload(bytes([self.level << 4]), 4)])


def at_cloud(setup: EdgeSetup) -> Callable[[str], str] | None:
    return None if setup.bs == 2 else functools.partial(part, setup.bs, str(setup.options["mood"]))


def part(bs: int, mood: str, device: str) -> str:
    return f"{bs} is {mood} on {device}"


def chosen(setup: EdgeSetup) -> Chosen:
    return Chosen("best", {"steps": 1, **setup.options})


class OwnFusion:
    def __init__(self, setup: CloudSetup) -> None:
        assert setup.options["mood"] == "good"
        assert {bs: make(setup.device) for bs, make in setup.networks.items()} == {
            0: "0 is good on cpu",
            1: "1 is good on cpu",
        }

    def fuse(self, groups: Sequence[Sequence[Report]]) -> list[Fix]:
        return [Fix((1.0, 2.0, 3.0), excluded={1: "it is number 1"}) for _ in groups]


OWN = SchemeSpec(
    scenario="paris-6-bias",
    weights="rss",
    options={"level": int, "mood": str, "asked": str},
    forwards=True,
    at_cloud=at_cloud,
    chosen=chosen,
)
own_edge, own_fusion = EdgeBuilder(OWN, OwnEdge), OwnFusion


@pytest.fixture
def own(settings: EmulateSettings, monkeypatch: pytest.MonkeyPatch) -> EmulateSettings:
    def points(group: str) -> dict[str, EntryPoint]:
        name = {"cofix.edge": "own_edge", "cofix.fusion": "own_fusion"}[group]
        return {"own": EntryPoint("own", f"{__name__}:{name}", group)}

    monkeypatch.setattr("fronthaul.installed.installed", points)
    return dataclasses.replace(
        settings, scheme="own", options=(("level", "7"), ("mood", "good")), capture=False, controls=False
    )


def test_options_and_parts_arrive_at_both_ends(own: EmulateSettings) -> None:
    result = emulate(own)
    assert (result.summary["fusion"], result.summary["options"]) == ("best", {"steps": 1, "level": 7, "mood": "good"})
    assert result.summary["excluded"] == {"1": own.snapshots}
    assert result.summary["reports"] == {"used": 40, "unused": 20, "late": 0, "lost": 0}
    assert replay(result.folder).identical == own.snapshots


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"level": "16"}, r"^Scheme 'own' cannot run: levels are 0 to 15\.$"),
        ({"level": "-1"}, "option 'level' of scheme 'own' must be a whole number, it is '-1'"),
        ({"steps": 3}, "^Scheme 'own' has no option 'steps'; it takes asked, level, mood.$"),
    ],
)
def test_what_it_does_not_take_is_one_sentence(own: EmulateSettings, options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        emulate(dataclasses.replace(own, options=(("mood", "good"), *options.items())))


def test_it_forwards_as_the_user_says(own: EmulateSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = dataclasses.replace(own, bits=None, forward="bfp9", options=(("mood", "good"), ("asked", "bfp9")))
    assert emulate(asked).summary["fixes"] == own.snapshots
    other = EdgeBuilder(dataclasses.replace(OWN, forwards=False), OwnEdge)
    monkeypatch.setattr(sys.modules[__name__], "own_edge", other)
    with pytest.raises(UserError, match="--forward bfp9 is for schemes that send the channel itself, not 'own'"):
        emulate(asked)


def test_its_scenario_is_the_default(own: EmulateSettings) -> None:
    assert scenario_of(None, "own") == "paris-6-bias"
    with pytest.raises(UserError, match="There is no scheme 'other'; installed are own"):
        scenario_of(None, "other")


def test_the_command_line_takes_any_option(own: EmulateSettings, capsys: pytest.CaptureFixture[str]) -> None:
    words = f"emulate --scheme own --scenario {own.scenario} --weights {own.weights} --snapshots 3 --driver process"
    line = [*words.split(), "--no-controls", "--output", str(own.output)]
    assert cli.main([*line, "--option", "mood=good", "--option", "level = 9", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["options"] == {"steps": 1, "mood": "good", "level": 9}
    assert cli.main([*line, "--option", "mood"]) == 2
    assert "--option must be KEY=VALUE" in capsys.readouterr().err


def test_makers_of_parts_can_be_shipped() -> None:
    made = at_cloud(EdgeSetup(1, PayloadChoice(4), {}, {}, options={"mood": "good"}))
    assert made is not None and pickle.loads(pickle.dumps(made))("cpu") == "1 is good on cpu"

"""What schemes say they are, and what holds of those that say nothing."""

from importlib.metadata import EntryPoint

import pytest
from torch import Tensor

from edge.scheme import EdgeBuilder, EdgeSetup, Encoded, SchemeSpec, scheme_spec, weights_scheme
from fronthaul.payload.choice import PayloadChoice


class Silent:
    name, bits, coefficients, side_bytes = "silent", 1, 0, 0

    def __init__(self, setup: EdgeSetup) -> None:
        self.setup = setup

    def encode(self, channel: Tensor) -> Encoded:
        raise NotImplementedError


class Told(Silent):
    spec = SchemeSpec(weights="rss")


class Wrong(Silent):
    spec = {"weights": "rss"}  # noqa: RUF012 - what somebody may write


built = EdgeBuilder(SchemeSpec(scenario="paris-7", options={}), Silent)


@pytest.fixture(autouse=True)
def _installed(monkeypatch: pytest.MonkeyPatch) -> None:
    def points(group: str) -> dict[str, EntryPoint]:
        return {name: EntryPoint(name, f"{__name__}:{name}", group) for name in ("Silent", "Told", "Wrong", "built")}

    monkeypatch.setattr("fronthaul.installed.installed", points)


def test_a_class_a_builder_and_a_scheme_that_says_nothing() -> None:
    assert scheme_spec("Silent") == SchemeSpec() and weights_scheme("Silent") == "Silent"
    assert scheme_spec("Told") is Told.spec and weights_scheme("Told") == "rss"
    assert scheme_spec("built").scenario == "paris-7"
    setup = EdgeSetup(3, PayloadChoice(4), {}, {})
    made = built(setup)
    assert isinstance(made, Silent) and made.setup is setup and setup.bits == 4


def test_a_spec_of_another_kind_is_one_sentence() -> None:
    with pytest.raises(
        LookupError, match=r"^The spec of scheme 'Wrong' is not a SchemeSpec, but \{'weights': 'rss'\}\.$"
    ):
        scheme_spec("Wrong")

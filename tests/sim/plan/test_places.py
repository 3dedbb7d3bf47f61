"""What `emulate` takes where the user says nothing of pace and places."""

import pytest

from sim.errors import UserError
from sim.plan import places
from sim.plan.options import interval_of
from sim.plan.places import places_of


@pytest.mark.parametrize(
    ("cores", "stations", "expected"),
    [(2, 6, (1, 0.25)), (2, 18, (3, 0.083)), (16, 18, (1, 0.25)), (2, 64, (8, 0.023)), (1, 6, (2, 0.083))],
)
def test_base_stations_fit_on_this_machine(
    monkeypatch: pytest.MonkeyPatch, cores: int, stations: int, expected: tuple[int, float]
) -> None:
    monkeypatch.setattr(places, "cores", lambda: cores)
    found = places_of(None, None, stations=stations, cloud_cpus=0.5, local=True)
    assert found == expected
    assert found[1] * stations + 0.5 <= cores


def test_what_is_said_stays_and_a_cluster_is_not_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "cores", lambda: 2)
    assert places_of(1, 0.5, stations=18, cloud_cpus=0.5, local=True) == (1, 0.5)
    assert places_of(None, None, stations=18, cloud_cpus=0.5, local=False) == (1, 0.25)


def test_the_pace_is_the_schemes_own_where_it_has_one() -> None:
    assert interval_of(None, "ecc") == 30.0
    assert interval_of(None, "vinloc") == 200.0
    assert interval_of(5.0, "vinloc") == 5.0
    with pytest.raises(UserError, match="no scheme"):
        interval_of(None, "vinlok")

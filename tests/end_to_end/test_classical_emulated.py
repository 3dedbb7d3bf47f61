"""Classical schemes and standard reports on shipped weights: bits, exact accounts, and what they say they lack."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import tiny_vinloc

from fronthaul.link.link_file import LinkPlan
from fronthaul.payload.nrppa_path import NrppaPathPayload, PathChoice
from fronthaul.payload.nrppa_sample import NrppaSamplePayload, SampleChoice
from sim.emulate.emulator import emulate, run_plan
from sim.errors import UserError
from sim.inspect.audit import audit
from sim.inspect.replay import replay
from sim.plan.plan import compose, load_plan, load_test_set
from sim.plan.settings import EmulateSettings
from sim.plan.weights import find_weights, load_weights
from sim.records.folder import RunFolder
from sim.records.links import read_ledgers
from sim.world.scenario import load_scenario

USERS = 20


def settings(scheme: str, **changes: object) -> EmulateSettings:
    usual = {"driver": "process", "snapshots": USERS, "controls": False, "report": False, "capture": False}
    return EmulateSettings(scheme=scheme, **usual | changes)  # type: ignore[arg-type]


def sent_bits(folder: Path) -> list[int]:
    ledgers = read_ledgers(RunFolder(folder))
    return [row["payload_bits"] for bs, ledger in ledgers.items() if bs is not None for row in ledger.to_pylist()]


@pytest.mark.parametrize(
    ("scheme", "bits", "most_m"),
    [("tdoa", 28, 8.0), ("aoa", 39, 1.5), ("toa-aoa", 67, 1.0)],
)
def test_a_run_has_exact_accounts_and_replays(tmp_path: Path, scheme: str, bits: int, most_m: float) -> None:
    links = LinkPlan({(None, None): {"loss": 0.05, "duplicate": 0.05}})
    result = emulate(settings(scheme, output=tmp_path, links=links))
    summary = result.summary
    sent = sent_bits(result.folder)
    assert set(sent) <= {0, bits} and np.mean([one == bits for one in sent]) > 0.85
    assert summary["bytes"]["side"] == 0 and summary["fixes"] + summary["undetermined"] == USERS
    assert summary["error_3d_m"]["median"] < most_m
    assert audit(result.folder).ok and replay(result.folder).ok


@pytest.mark.parametrize(("scheme", "most_m"), [("nrppa-path", 0.4), ("nrppa-path-learned", 0.2)])
def test_standard_reports_have_the_length_of_their_paths_and_replay(tmp_path: Path, scheme: str, most_m: float) -> None:
    options = (("paths", 2),)
    result = emulate(settings(scheme, options=options, output=tmp_path))
    summary = result.summary
    assert summary["fixes"] == USERS and summary["error_3d_m"]["median"] < most_m
    assert max(sent_bits(result.folder)) <= NrppaPathPayload(PathChoice.of(dict(options))).format.max_bits
    assert len(set(sent_bits(result.folder))) > 2  # none, and one to three paths
    assert audit(result.folder).ok and replay(result.folder).ok


@pytest.mark.parametrize(("scheme", "phases", "most_m"), [("nrppa-sample", 1, 1.0), ("nrppa-sample-learned", 0, 0.6)])
def test_reports_of_samples_have_the_agreed_length_and_replay(
    tmp_path: Path, scheme: str, phases: int, most_m: float
) -> None:
    result = emulate(settings(scheme, options=(("phases", phases),), output=tmp_path))
    summary = result.summary
    assert summary["fixes"] == USERS and summary["error_3d_m"]["median"] < most_m
    bits = NrppaSamplePayload(SampleChoice.of({"phases": phases})).format.max_bits
    assert set(sent_bits(result.folder)) == {0, bits}
    assert audit(result.folder).ok and replay(result.folder).ok


def test_a_user_whose_clock_is_off_takes_differences_of_times(tmp_path: Path) -> None:
    found = {
        scheme: emulate(settings(scheme, scenario="paris-6-bias", output=tmp_path)).summary["error_2d_m"]["median"]
        for scheme in ("toa", "tdoa")
    }
    assert found["tdoa"] < 1.5 < 4.0 < found["toa"]


def test_who_is_not_heard_sends_nothing_and_is_excluded(tmp_path: Path) -> None:
    run = settings("toa-aoa", output=tmp_path, snapshots=8)
    world, paths = load_test_set(load_scenario("paris-6"), run)
    heard = np.ones((len(paths), 6), bool)
    heard[1, 0] = heard[3, 1:3] = heard[4] = False
    path = find_weights("paris-6", "toa", 4)
    result = run_plan(compose(run, world, tiny_vinloc.silenced(paths, heard), load_weights(path), weights_path=path))
    assert (result.summary["fixes"], result.summary["undetermined"]) == (7, 1)
    heard &= paths.paths_per_link() > 0
    for bs, ledger in read_ledgers(RunFolder(result.folder)).items():
        for row in ledger.to_pylist() if bs is not None else ():
            assert (row["payload_bits"] > 0) == heard[row["snapshot"], bs] == (row["report_fate"] == "used")


def test_what_a_scheme_does_not_take_is_one_sentence() -> None:
    with pytest.raises(UserError, match="k from 0 to 5, not 6"):
        load_plan(settings("toa", options=(("k", 6),)))
    with pytest.raises(UserError, match="'aoa' has no option 'k'"):
        load_plan(settings("aoa", options=(("k", 1),)))
    with pytest.raises(UserError, match="No weights are shipped"):
        load_plan(settings("toa", scenario="paris-7"))
    with pytest.raises(UserError, match="other sites"):
        load_plan(dataclasses.replace(settings("toa", scenario="paris-7"), weights=find_weights("paris-6", "toa", 4)))

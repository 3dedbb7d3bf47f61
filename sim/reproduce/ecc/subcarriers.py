"""``ecc-subcarriers``: the error against what is measured: subcarriers (the paper's Fig. 13), slots, sites, power."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from sim.drawing import COLOURS, error_bars, new_axes, save_figure
from sim.learn.ecc.train import intermediate_positions
from sim.plan.settings import EmulateSettings
from sim.plan.weights import find_weights, load_weights
from sim.records.statistics import sample_statistics
from sim.reproduce import markdown
from sim.reproduce.ecc.campaign import SLOTS, TONES
from sim.reproduce.ecc.runs import HEAD, ComparisonBench, cells, comparison, emulated, statistics, variant
from sim.reproduce.markdown import Record
from sim.reproduce.rows import Result, Row
from sim.world.channel import pad_paths
from sim.world.scenario import load_scenario
from sim.world.store import load_test_paths

Array = npt.NDArray[np.float64]

ALL_TONES, ALL_SLOTS, ALL_SITES, POWER_DBM = 24, 10, 6, 23
POWERS_DBM = (-37, -27, -17, -7, 3, 13)
STEPS = (1, 2, 3, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24)
AS_TRAINED = "shipped weights, B = 5"
SECTIONS = {
    "tones": "tones around the carrier, one network each, B = 4",
    "steps": "position after so many tokens of 24, the LSTM of the shipped weights, B = 5",
    "slots": "slots, one network each, B = 4",
    "sites": "base stations, drawn anew for each position; shipped weights, B = 5",
    "power": "transmit power, and median signal-to-noise ratio of a tone at an antenna; shipped weights, B = 5",
}
UNITS = {"tones": "tone", "steps": "token", "slots": "slot", "sites": "base station"}


def runs() -> dict[str, EmulateSettings]:
    """Return settings by label."""
    tones = {
        n: comparison(4, f"short-tones{n}-b4", scenario=variant(f"tones-{n}", {"numerology": {"tones": n}}))
        for n in TONES
    }
    slots = {
        n: comparison(4, f"short-slots{n}-b4", scenario=variant(f"slots-{n}", {"numerology": {"slots": n}}))
        for n in SLOTS
    }
    sites = {n: comparison(5, bs=n, random_subset=True) for n in range(1, ALL_SITES)}
    power = {
        level: comparison(5, scenario=variant(f"power{level}", {"link_budget": {"tx_power_dbm": float(level)}}))
        for level in POWERS_DBM
    }
    whole, shipped = comparison(4, "short-slot-b4"), comparison(5)
    made = {
        "tones": tones | {ALL_TONES: whole}, "slots": slots | {ALL_SLOTS: whole},
        "sites": sites | {ALL_SITES: shipped}, "power": power | {POWER_DBM: shipped},
    }  # fmt: skip
    found = {label_of(what, n): one for what, some in made.items() for n, one in some.items()}
    return found | {AS_TRAINED: shipped}


def label_of(what: str, n: int) -> str:
    """Return the label of a row, also of its run."""
    return f"{n} dBm" if what == "power" else f"{n} {UNITS[what]}{'s' * (n > 1)}"


def subcarrier_bench() -> ComparisonBench:
    """Return the bench."""
    return ComparisonBench(runs())


def subcarrier_rows(_: ComparisonBench) -> list[Row]:
    """Make the rows."""
    counts = {"tones": (*TONES, ALL_TONES), "steps": STEPS, "slots": (*SLOTS, ALL_SLOTS),
              "sites": range(1, ALL_SITES + 1), "power": (*POWERS_DBM, POWER_DBM)}  # fmt: skip
    return [
        Row(label_of(what, n), after_steps, (AS_TRAINED,), {"steps": n}, section=SECTIONS[what], about={"at": n})
        if what == "steps"
        else Row(
            label_of(what, n),
            emulated,
            (label_of(what, n),),
            section=SECTIONS[what],
            about={"at": n} | ({"snr_db": round(snr_db(n), 1)} if what == "power" else {}),
        )
        for what, some in counts.items()
        for n in some
    ]


@cache
def snr_db(tx_power_dbm: float) -> float:
    """Return the signal-to-noise ratio [dB] of one tone at one antenna: the median over the test positions' links."""
    scenario = load_scenario("paris-6")
    budget = replace(scenario.link_budget, tx_power_dbm=tx_power_dbm)
    scenario = replace(scenario, link_budget=budget)
    padded = pad_paths(load_test_paths(scenario), scenario.numerology.carrier_hz)
    power = padded.coefficient.abs().double().square().sum(2) * scenario.tone_power_w / scenario.tone_noise_w
    return float(10 * power[power > 0].median().log10())


def after_steps(bench: ComparisonBench, names: Sequence[str], *, steps: int) -> Result:
    """Measure the LSTM's position after so many tokens, on the test positions, with noise of its own draw."""
    settings = bench.settings[names[0]]
    path = settings.weights or find_weights("paris-6", settings.scheme, settings.bits)
    position, truth = positions_of(settings.scenario, path)
    error = np.linalg.norm(position[:, steps - 1] - truth, axis=1)
    return {"error_3d_m": sample_statistics(error, truth)}


@cache
def positions_of(scenario: str, weights: Path) -> tuple[Array, Array]:
    """Return the LSTM's positions (N, F, 3) at the test positions, and these (N, 3) [m]."""
    paths = load_test_paths(load_scenario(scenario))
    return intermediate_positions(load_scenario(scenario), paths, load_weights(weights)), paths.position


def subcarrier_draw(path: Path, records: Sequence[Record]) -> None:
    """Draw the error against tones and tokens, slots and base stations, and power."""
    figure, panels = new_axes(3)
    for axes, whats, label in zip(
        panels, (("tones", "steps"), ("slots", "sites"), ("power",)),
        ("subcarriers", "slots, base stations", "transmit power [dBm]"), strict=True,
    ):  # fmt: skip
        for what in whats:
            some = [one for one in records if one["section"] == SECTIONS[what] and one["result"]]
            points = [(one["about"]["at"], one["result"]["error_3d_m"]) for one in some]
            error_bars(axes, points, SECTIONS[what], COLOURS[list(SECTIONS).index(what)])
        axes.set_xlabel(label)
    panels[0].set_ylabel("mean 3D error [m], 95 % interval")
    save_figure(figure, path)


def subcarrier_page(name: str, records: Sequence[Record]) -> str:
    """Return the page."""
    text = [
        *markdown.picture(name),
        "The paper's Fig. 13 (no figures printed) shows the error falling fast with the number of subcarriers, then",
        "saturating. Read as bandwidth: networks trained from scratch for so many tones, 720 kHz apart, on the short",
        "schedule (0.75 epoch); so are those for fewer slots. Read as the LSTM's accumulation: its intermediate",
        "positions, which know of the other tones what the encoders mix in. Base stations and power are evaluations of",
        "the shipped weights, which saw random subsets of base stations in training, but one power.",
        "",
    ]

    def line(record: Record) -> list[list[str]]:
        found = record["result"]
        if "snr_db" in record["about"]:
            record = record | {"label": f"{record['label']}, {record['about']['snr_db']:g} dB"}
        if found is not None and "payload_ratio" not in found:
            return [[record["label"], "", "", "", *statistics(found["error_3d_m"])]]
        return [cells(record)]

    return markdown.page(name, [*text, *markdown.table(HEAD, markdown.sectioned(records, line))], records)

"""``front``: the error of a fix against the bits of a report, of all schemes on `paris-6`, side information included.

Points that other tables have at the same setting are read from there.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sim.drawing import COLOURS, error_bars, new_axes, save_figure
from sim.errors import UserError
from sim.plan.settings import EmulateSettings
from sim.reproduce import markdown
from sim.reproduce.ecc.runs import comparison, statistics
from sim.reproduce.emulations import Emulations
from sim.reproduce.markdown import Record
from sim.reproduce.rows import Result, Row, read_records

RD_BITS = (16, 24, 32, 48, 64, 96, 128, 256)
KLT_BITS = (*RD_BITS, 1024, 4096)
TOTAL_BITS = (16, 32, 64, 128)
"""Of `ecc-total`, for each of the base stations; an equal split among them is `ecc-klt` in as many bits a report."""
CODED_BITS = {"ecc-klt": (64, 128, 256), "ecc-rd": (16, 32, 64)}
TWIN_BITS = (16, 24, 32, 48, 64, 96, 128, 256)
TABLES = Path("docs/tables")
POWER, FIXED, KLT, RD, TWIN = "rss", "ecc, B bits a number", "ecc-klt", "ecc-rd", "twin, exact map"
TOTAL, STATIC = "ecc-total", "ecc-total, one length a station"
CLASSICAL, CLOCK, PATHS, SAMPLES = "first path", "first path, clock unknown", "nrppa-path", "nrppa-sample"
CODED, LEARNED = ", entropy-coded", ", learned fusion"
SECTIONS = (
    POWER, CLASSICAL, CLOCK, PATHS, PATHS + LEARNED, SAMPLES, SAMPLES + LEARNED, FIXED,
    KLT, KLT + CODED, STATIC, TOTAL, RD, RD + CODED, TWIN,
)  # fmt: skip
_FURTHER = (0, 4)
_FIRST_PATH = ("toa", "tdoa", "aoa", "toa-aoa", "tdoa-aoa")
CONTROLS, RATE_LIMITED = "controls", "rate-limited bound of twin"
UNTRAINED = "B = 1, not trained for"
HEAD = ["", "bits of a report", "mean [m] (95 %)", "median [m]", "p90 [m]"]
_READ = {
    "rss, B = 8": (POWER, "ecc-table2", "rss, B = 8"),
    **{f"B = {bits}": (FIXED, "ecc-table2", f"B = {bits}") for bits in (2, 3, 4, 5)},
    "lossless": (FIXED, "ecc-table2", "lossless CSI, no encoder"),
    **{f"twin, {bits} bit": (TWIN, "twin-bits", f"{bits} bit") for bits in TWIN_BITS},
}
"""Rows that are read: section, table and label there."""
_CONTROLS = {"prior: mean training position": "prior", "position error bound": "bound"}
_STATIONS = 6


def runs() -> dict[str, EmulateSettings]:
    """Return the settings of the rows that are measured here, by label."""
    found = {UNTRAINED: comparison(1)}
    found |= {scheme: comparison(4, scheme=scheme) for scheme in _FIRST_PATH}
    for fusion, ending in (("", ""), ("-learned", LEARNED)):
        for further in _FURTHER:
            label = f"{PATHS}, {further} further paths{ending}"
            found[label] = comparison(4, scheme=f"{PATHS}{fusion}", options=(("paths", further),))
    for samples, window, fusion, ending in ((9, 64, "", ""), (24, 128, "", ""), (9, 64, "-learned", LEARNED)):
        sent = (("samples", samples), ("window", window))
        label = f"{SAMPLES}, {samples} of {window}{ending}"
        found[label] = comparison(4, scheme=f"{SAMPLES}{fusion}", options=sent)
    for scheme, lengths in ((KLT, KLT_BITS), (RD, RD_BITS)):
        for bits in lengths:
            found[f"{scheme}, {bits} bit"] = comparison(4, scheme=scheme, options=(("bits_per_report", bits),))
        for bits in CODED_BITS[scheme]:
            options = (("bits_per_report", bits), ("entropy", 1))
            found[f"{scheme}, {bits} bit{CODED}"] = comparison(4, scheme=scheme, options=options)
    for section, classes in ((STATIC, 1), (TOTAL, 8)):
        for bits in TOTAL_BITS:
            options = (("total_bits", _STATIONS * bits), ("classes", classes))
            found[f"{section}, {_STATIONS} × {bits} bit"] = comparison(4, scheme=TOTAL, options=options)
    return found


class FrontBench(Emulations):
    """The runs, and the rows of other tables."""

    def __init__(self, tables: Path = TABLES) -> None:
        super().__init__(runs())
        self._tables = tables

    def identity(self, name: str, *, fitted: bool) -> str | None:
        """Return the digest of a run, or of what is read; None if the weights or the table are missing."""
        try:
            if name in self.settings:
                return self._inputs.key(self.settings[name])
            return hashlib.sha256(json.dumps(self.read(name)).encode()).hexdigest()[:16]
        except UserError:
            return None

    def read(self, name: str) -> Result:
        """Return a row of another table.

        Raises:
            UserError: there is none.
        """
        _, table, label = _READ.get(name, (CONTROLS, "ecc-table2", "B = 4"))
        found = read_records(self._tables / f"{table}.json").get(label, {}).get("result")
        if not found:
            raise UserError(f"The table {table} has no row {label!r}: run `python cli.py reproduce {table}`.")
        if name in _CONTROLS:
            return {"error_3d_m": found["controls"][_CONTROLS[name]], "bits": None}
        bits = found.get("payload_bits_per_report") or found["payload_bits_per_fix"] / _STATIONS
        gain = 32 if name.startswith("B =") or name == "lossless" else 0
        heard = 8 if name.startswith("rss") else 0
        bound = {"bound_m": found["bound_m"]} if found.get("bound_m") else {}
        return {"error_3d_m": found["error_3d_m"], "bits": bits + gain + heard, **bound}


def front_rows(bench: FrontBench) -> list[Row]:
    """Make a row for each point."""
    measured = [Row(label, emulated, (label,), section=_section(label)) for label in bench.settings]
    others = [Row(label, copied, (label,), section=section) for label, (section, *_) in _READ.items()]
    controls = [Row(label, copied, (label,), section=CONTROLS) for label in _CONTROLS]
    return [*sorted([*measured, *others], key=lambda row: SECTIONS.index(row.section)), *controls]


def _section(label: str) -> str:
    if label in _FIRST_PATH:
        return CLOCK if label.startswith("tdoa") else CLASSICAL
    variant = next((ending for ending in (CODED, LEARNED) if label.endswith(ending)), "")
    schemes = (PATHS, SAMPLES, KLT, STATIC, TOTAL, RD)
    return next((scheme + variant for scheme in schemes if label.startswith(scheme)), FIXED)


def _family(section: str) -> str:
    """Return the section that a variant of it, entropy-coded or with learned fusion, is drawn like."""
    return section.removesuffix(CODED).removesuffix(LEARNED)


def emulated(bench: FrontBench, names: Sequence[str]) -> Result:
    """Run an emulation; keep its errors and bits."""
    summary = bench.run(names[0]).summary
    reports = summary["bs"] * summary["snapshots"]
    side: float = 8 * summary["bytes"]["side"] / reports
    return {"error_3d_m": summary["error_3d_m"], "bits": summary["payload_bits_per_report"] + side}


def copied(bench: FrontBench, names: Sequence[str]) -> Result:
    """Return a point of another table."""
    return bench.read(names[0])


def front_page(name: str, records: Sequence[Record]) -> str:
    """Return the page."""
    text = [
        *markdown.picture(name),
        "Six base stations of `paris-6`, in process, at held-out positions: the first 1000 for `twin`, all 2000 for",
        "the others. Bits of a report: mean over fixes, with side information, without headers. A base station that",
        "does not hear the user sends 0 bit, but in `rss` and `ecc`. Entropy-coded reports (`--entropy`) make the",
        "fixes of the row with as many bits, which is their limit. `ecc-total` shares one budget out among six base",
        "stations; the equal split is `ecc-klt` in as many bits. Rows of `rss`, `ecc` from B = 2 on, `twin` and the",
        "controls are those of [ecc-table2](ecc-table2.md) and [twin-bits](twin-bits.md). What limits each scheme is",
        "in [ecc.md](../ecc.md) and [twin.md](../twin.md). Learned fusion is that of the same standard reports by a",
        "network, trained at positions of the same area ([schemes.md](../schemes.md)).",
        "",
    ]
    lines = markdown.sectioned(records, lambda record: [cells(record)])
    return markdown.page(name, [*text, *markdown.table(HEAD, lines)], records)


def cells(record: Record) -> list[str]:
    """Return a record's cells under `HEAD`."""
    found: dict[str, Any] | None = record["result"]
    if not found:
        return [record["label"], "", markdown.NOT_TRAINED]
    bits = "" if found["bits"] is None else f"{found['bits']:,.0f}".replace(",", " ")
    return [record["label"], bits, *statistics(found["error_3d_m"])]


def front_draw(path: Path, records: Sequence[Record]) -> None:
    """Draw the mean error against the bits of a report, between prior and bounds."""
    figure, [axes] = new_axes()
    families = list(dict.fromkeys(map(_family, SECTIONS)))
    for section in SECTIONS:
        found = [one["result"] for one in records if one["section"] == section and one["result"]]
        colour = COLOURS[families.index(_family(section))]
        line = "-" if section == _family(section) else "--"
        error_bars(axes, [(one["bits"], one["error_3d_m"]) for one in found], section, colour, linestyle=line)
        if bounds := sorted((one["bits"], one["bound_m"]) for one in found if "bound_m" in one):
            axes.plot(*zip(*bounds, strict=True), ":", color=colour, linewidth=1.2, label=RATE_LIMITED)
    for record, style in zip([one for one in records if one["section"] == CONTROLS], ("--", ":"), strict=True):
        if record["result"]:
            axes.axhline(record["result"]["error_3d_m"]["mean"], color="#5a6472", linestyle=style, linewidth=1.2,
                         label=record["label"])  # fmt: skip
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set_xlabel("bits of a report, side information included")
    axes.set_ylabel("mean 3D error [m]")
    save_figure(figure, path)

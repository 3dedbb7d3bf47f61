"""`preview`: what a scenario looks like, before anything is traced."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def preview(
    scenario: Annotated[
        str, typer.Argument(help="Name of a shipped scenario, or path of a TOML file.", show_default=False)
    ],
    output: Annotated[
        Path | None,
        typer.Option(help="Folder of preview.png and preview.html; default: data/SCENARIO.", show_default=False),
    ] = None,
) -> None:
    """Draw a scenario from above, count where users may stand, and check its scene; nothing is traced.

    Of an imported scenario: where its positions are, and which sites hear them.
    """
    from sim.errors import UserError
    from sim.report.preview_page import count_rows, site_rows, write_preview
    from sim.world.preview import make_preview
    from sim.world.scenario import load_scenario
    from sim.world.store import DATA_FOLDER

    wanted = load_scenario(scenario)
    made = make_preview(wanted)
    for rule, count in count_rows(made):
        print(f"{count:>6}  {rule}")
    for name, where, _, sees, remark in site_rows(made):
        print(f"site {name} at ({where}) m {sees} of these points" + f"; {remark}" * bool(remark))
    for path in write_preview(made, output or DATA_FOLDER / wanted.name):
        print(path)
    if not len(made.position):
        raise UserError("No point is left for users: check users.low, users.high, users.area and users.outdoor.")

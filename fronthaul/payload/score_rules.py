"""Rules that fuse what base stations say of a state, by name: all that both ends must know of them.

A rule is one line here and one file `cloud/fusion/scores/<name>.py`, where the cloud finds it.
"""

from __future__ import annotations

from collections.abc import Mapping

RULES: Mapping[str, bool] = {
    "sum": False,
    "mean": False,
    "precision": False,
    "fnpe": False,
    "gauss": False,
    "jac": True,
}
"""Whether answers must hold Jacobians, which they are the longer for."""

"""Rules that fuse the base stations' answers to a state: the properties that both ends need, by name.

A rule is one line here and one file, `cloud/fusion/scores/<name>.py`, for the cloud.
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
"""Whether answers must include Jacobians, which make them longer."""

"""The paper's results [m], for comparison with ours. VIn-Loc Sec. 4, Tables 2 and 4.

Its root mean square error, mean absolute error and 90th percentile cannot all be of one kind of error: with a mean of
0.76 m and a root mean square of 0.81 m the standard deviation is 0.28 m, and by Cantelli's inequality at most a tenth
of the errors exceed 0.76 + 3 · 0.28 = 1.60 m; yet the table has 1.99 m (ResNet, 18 of 18). It seems to mix errors of
single coordinates with distances. Ours are distances (Euclidean, 3D) unless named otherwise.
"""

from __future__ import annotations

Figures = dict[str, float]


def figures(rmse: float, mae: float, p90: float) -> Figures:
    """Return a row of the paper: root mean square, mean absolute error, 90th percentile [m]."""
    return {"rmse": rmse, "mean": mae, "p90": p90}


FIXED = figures(0.99, 0.72, 1.71)
"""Table 2, 18 of 18 base stations."""
FIXED_BLIND = figures(0.98, 0.73, 1.62)
FIXED_RESNET = figures(0.81, 0.76, 1.99)
VARIABLE = figures(0.95, 0.82, 1.68)
"""Table 2, 15 of 18 base stations."""
VARIABLE_BLIND = figures(1.45, 1.13, 2.11)
VARIABLE_RESNET = figures(26.76, 23.4, 66.84)
STREET = figures(0.93, 0.9, 1.5)
"""Table 4, Scenario 1."""
BLOCK = figures(7.3, 6.1, 11.0)
"""Table 4, Scenario 2."""

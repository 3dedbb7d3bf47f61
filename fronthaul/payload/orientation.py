"""How an array stands in space: its axes for its yaw and pitch."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def axes_of(yaw: float, pitch: float) -> npt.NDArray[np.float64]:
    """Return the axes (3, 3) of an array in space, as columns x (ahead), y, z, for yaw and pitch (down) [rad]."""
    about_z = np.array([[np.cos(yaw), -np.sin(yaw), 0], [np.sin(yaw), np.cos(yaw), 0], [0, 0, 1]])
    about_y = np.array([[np.cos(pitch), 0, np.sin(pitch)], [0, 1, 0], [-np.sin(pitch), 0, np.cos(pitch)]])
    axes: npt.NDArray[np.float64] = about_z @ about_y
    return axes

"""Channel impulse responses as Sionna makes them, in an HDF5 or NPZ file: they become channels at tones.

Sionna defines the arrays, not the file: `a` [batch, num_rx, num_rx_ant, num_tx, num_tx_ant, num_paths, num_time_steps]
complex baseband coefficients, and `tau` [batch, num_rx, num_tx, num_paths], or with both axes of antennas, delays [s]
(https://nvlabs.github.io/sionna/phy/api/channel/wireless/sionna.phy.channel.cir_to_time_channel.html; without the
batch: `Paths.cir`, https://nvlabs.github.io/sionna/rt/api/paths.html). The frequency response is Σ_p a_p e^{−j2πντ_p};
the carrier's phase is in `a`. Beside them the file has the fields of the contract, `position` and `site_position` among
them: their lengths say which end of the links are the users. The channel is reciprocal.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from sim.errors import UserError
from sim.formats.contract import Fields

_Array = npt.NDArray[Any]


def is_cir(fields: Fields) -> bool:
    """Return whether fields are of a file of impulse responses."""
    return "a" in fields and "tau" in fields


def cir_to_csi(fields: Fields, where: str) -> dict[str, _Array]:
    """Return the fields with `csi` instead of `a` and `tau`.

    Raises:
        UserError: the shapes do not fit each other, or the numbers of users and sites.
    """
    needed = ("position", "site_position", "bandwidth_hz", "tone_spacing_hz")
    for name in needed:
        if name not in fields:
            raise UserError(f"{where}: the field {name!r} is missing; it may also be given by --field.")
    users, sites = len(np.atleast_1d(fields["position"])), len(np.atleast_1d(fields["site_position"]))
    a, tau = np.asarray(fields["a"]), np.asarray(fields["tau"])
    antennas = tau.ndim == a.ndim - 1  # each pair of antennas has its own delays
    if not antennas and tau.ndim == a.ndim - 3:
        tau = tau[..., :, None, :, None, :]
    if a.ndim not in (6, 7) or tau.ndim != a.ndim - 1 or not _broadcasts(tau.shape, a.shape[:-1]):
        raise UserError(
            f"{where}: a has the shape {a.shape} and tau {np.shape(fields['tau'])}, where ([batch,] rx, rx antenna, "
            "tx, tx antenna, path, time) and ([batch,] rx, tx, path) are needed."
        )
    a, tau = (_by_link(array, users, sites, where, a.shape) for array in (a, tau[..., None]))
    spacing = float(np.reshape(fields["tone_spacing_hz"], -1)[0])
    count = int(float(np.reshape(fields["bandwidth_hz"], -1)[0]) // spacing)
    tone = (np.arange(count) - (count - 1) / 2) * spacing
    site_antennas, user_antennas, slots = a.shape[2], a.shape[3], a.shape[5]
    csi = np.empty((users, sites, slots, site_antennas * user_antennas, count), np.complex64)
    for n in range(users):
        phasor = np.exp(-2j * np.pi * tau[n] * tone)  # (site, site antenna or 1, user antenna or 1, path, tone)
        full = np.broadcast_to(phasor, (*a.shape[1:5], count))
        made = np.einsum("kmupt,kmupf->ktmuf", a[n], full)
        csi[n] = made.reshape(sites, slots, -1, count)
    return {name: value for name, value in fields.items() if name not in ("a", "tau")} | {"csi": csi}


def _broadcasts(small: tuple[int, ...], large: tuple[int, ...]) -> bool:
    return all(s in (1, whole) for s, whole in zip(small, large, strict=True))


def _by_link(array: _Array, users: int, sites: int, where: str, shape: tuple[int, ...]) -> _Array:
    """Return an array with the axes (user, site, site antenna, user antenna, path, time or 1)."""
    batched = array.ndim == 7
    rx, tx = shape[-6], shape[-4]
    ends = (sites, 1) if batched else (sites, users)  # receivers and transmitters, in the uplink
    up, down = (rx, tx) == ends, (tx, rx) == ends
    if (batched and shape[0] != users) or not (up or down):
        raise UserError(
            f"{where}: a has {'a batch of ' + str(shape[0]) + ', ' if batched else ''}{rx} receivers and {tx} "
            f"transmitters, which do not fit {users} positions and {sites} sites."
        )
    if up and down and not batched:
        raise UserError(f"{where}: there are as many positions as sites, so that a does not say which end is which.")
    if batched:
        return array[:, :, :, 0] if up else np.moveaxis(array[:, 0], (1, 2, 3), (3, 1, 2))
    return np.moveaxis(array, (0, 1, 2, 3), (1, 2, 0, 3)) if up else np.moveaxis(array, (0, 1, 2, 3), (0, 3, 1, 2))

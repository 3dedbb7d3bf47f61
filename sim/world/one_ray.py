"""Trace one ray to check that this machine can; `sim.world.sionna_rt` runs this file in a separate process.

The engine (LLVM or GPU) is printed before tracing, because an LLVM that cannot compile a kernel aborts the process.
"""

from __future__ import annotations

import os
import re
import resource
from pathlib import Path


def main() -> None:
    """Trace from a transmitter to a receiver in Sionna RT's smallest scene."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # an abort is an expected result here: no core dump
    import sionna.rt as rt

    print(_engine(), flush=True)
    scene = rt.load_scene(rt.scene.floor_wall)
    scene.tx_array = scene.rx_array = rt.PlanarArray(num_rows=1, num_cols=1, pattern="iso", polarization="V")
    scene.add(rt.Transmitter("site", [0.0, 0.0, 3.0]))
    scene.add(rt.Receiver("user", [1.0, 1.0, 1.0]))
    paths = rt.PathSolver()(scene, max_depth=2, samples_per_src=1000)
    paths.cir(out_type="numpy")


def _engine() -> str:
    """Return the engine, from the variant that Sionna RT has chosen; for LLVM with version and loaded library."""
    import drjit as dr
    import mitsuba as mi

    variant = str(mi.variant())
    if not variant.startswith("llvm"):
        return f"the GPU ({variant})"
    version = ".".join(map(str, dr.detail.llvm_version()))
    maps = Path("/proc/self/maps")
    loaded = re.findall(r"/.*libLLVM.*", maps.read_text(encoding="utf-8")) if maps.exists() else []
    return f"LLVM {version} ({loaded[0] if loaded else os.environ.get('DRJIT_LIBLLVM_PATH', 'unknown path')})"


if __name__ == "__main__":
    main()

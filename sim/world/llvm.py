"""Find the LLVM shared library with which Dr.Jit, and so Sionna RT, traces rays on a CPU, or advise how to install one.

Uses the standard library alone: `.ci/llvm` runs this file as a script before anything is installed.

    python3 sim/world/llvm.py            prints the library's path, or exits with status 1 and a message
    python3 sim/world/llvm.py --package  prints the system package that provides it
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

MINIMUM = 17
"""Oldest usable major version: older ones cannot compile Dr.Jit's `llvm.maximum` and abort the process."""
PACKAGE = "libllvm19"
"""Debian and Ubuntu package that provides the library."""
WHEEL = "karellen-llvm-core"
"""Python distribution that provides the library; the extra `trace` installs it on x86-64 Linux."""
VARIABLE = "DRJIT_LIBLLVM_PATH"
"""Environment variable in which users name the library and from which Dr.Jit reads its path."""
ADVICE = (
    "install the extra `trace`, which brings LLVM on x86-64 Linux, or, as root, "
    f"`apt-get install {PACKAGE}`, and leave {VARIABLE} unset, or set it to a libLLVM.so of version {MINIMUM} or newer"
)
"""Advice if no usable library is found; part of a sentence."""

_NAME = re.compile(r"libLLVM(?:-|\.so\.)(\d+)")  # libLLVM-15.so.1, libLLVM-19.so, libLLVM.so.19.1
_LISTED = re.compile(r"^\s*libLLVM\S* \((.*?)\).* => (.*)$", re.MULTILINE)
_OWN_KIND = {"x86_64": "x86-64", "aarch64": "AArch64"}.get(platform.machine(), "")  # as the linker lists it


def find() -> str | None:
    """Return the path of the library: the user's, else the wheel's, else the newest one known to the dynamic linker.

    None if there is none of version `MINIMUM` or newer. The user's path is returned unchecked.
    """
    if named := os.environ.get(VARIABLE):
        return named
    for candidates in (_in_wheel(), _listed()):
        version, path = max(((_major(path), path) for path in candidates if Path(path).is_file()), default=(0, ""))
        if version >= MINIMUM:
            return path
    return None


def choose() -> None:
    """Make Dr.Jit use the library that `find` returns, in this process and its children; call before importing Dr.Jit.

    If none is found, Dr.Jit searches by itself; with a GPU it needs no LLVM.
    """
    if path := find():
        os.environ[VARIABLE] = path


def _in_wheel() -> Iterator[str]:
    """Yield the wheel's files, not the links to them, which exist only after an interpreter has first started."""
    try:
        files = metadata.files(WHEEL) or []
    except metadata.PackageNotFoundError:
        return
    for file in files:
        yield str(Path(str(file.locate())).resolve())


def _listed() -> Iterator[str]:
    """Yield the libraries that the dynamic linker knows for this machine's architecture."""
    program = shutil.which("ldconfig", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin")
    if program is None:
        return
    done = subprocess.run([program, "-p"], capture_output=True, text=True, check=False)
    for kind, path in _LISTED.findall(done.stdout):
        if _OWN_KIND in kind:
            yield path


def _major(path: str) -> int:
    """Return the major version in a library's file name; 0 if it has none."""
    found = _NAME.match(Path(path).name)
    return int(found[1]) if found else 0


def _problem(path: str | None) -> str:
    """Return a sentence on why a library is unusable, judged by its path and name; empty if it may be usable."""
    if path is None:
        return f"No LLVM shared library of version {MINIMUM} or newer was found: {ADVICE}."
    if not Path(path).exists():
        return f"{VARIABLE} is {path}, which does not exist: {ADVICE}."
    if 0 < (version := _major(os.path.realpath(path))) < MINIMUM:
        return f"{VARIABLE} is {path}, which is LLVM {version}: {ADVICE}."
    return ""


def main(arguments: list[str]) -> int:
    """Print the library's path, or the package that provides it; return the exit status."""
    if arguments == ["--package"]:
        print(PACKAGE)
        return 0
    path = find()
    if problem := _problem(path):
        print(problem, file=sys.stderr)
        return 1
    print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

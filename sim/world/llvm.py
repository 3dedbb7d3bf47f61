"""The LLVM shared library with which Dr.Jit, and so Sionna RT, traces rays on a CPU: which one, and what to do without.

Standard library alone: `.ci/llvm` runs this file as a script, also where nothing is installed.

    python3 sim/world/llvm.py            prints the library's path; status 1 and a sentence where there is none
    python3 sim/world/llvm.py --package  prints the system's package that brings one
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
"""Oldest major version: no older one can compile the `llvm.maximum` that Dr.Jit writes, and it aborts the process."""
PACKAGE = "libllvm19"
"""Debian's and Ubuntu's package of one."""
WHEEL = "karellen-llvm-core"
"""The distribution of one that the extra `trace` brings on x86-64 Linux."""
VARIABLE = "DRJIT_LIBLLVM_PATH"
"""Environment variable by which a user names one, and by which Dr.Jit is told."""
ADVICE = (
    "install the extra `trace`, which brings LLVM on x86-64 Linux, or, as root, "
    f"`apt-get install {PACKAGE}`, and leave {VARIABLE} unset, or set it to a libLLVM.so of version {MINIMUM} or newer"
)
"""What to do where there is none that will do; a part of a sentence."""

_NAME = re.compile(r"libLLVM(?:-|\.so\.)(\d+)")  # libLLVM-15.so.1, libLLVM-19.so, libLLVM.so.19.1
_LISTED = re.compile(r"^\s*libLLVM\S* \((.*?)\).* => (.*)$", re.MULTILINE)
_OWN_KIND = {"x86_64": "x86-64", "aarch64": "AArch64"}.get(platform.machine(), "")  # as the linker lists it


def find() -> str | None:
    """Return the path of the library: the user's, else the wheel's, else the newest that the linker lists.

    None where there is none of at least `MINIMUM`. The user's is returned as it is.
    """
    if named := os.environ.get(VARIABLE):
        return named
    for candidates in (_in_wheel(), _listed()):
        version, path = max(((_major(path), path) for path in candidates if Path(path).is_file()), default=(0, ""))
        if version >= MINIMUM:
            return path
    return None


def choose() -> None:
    """Have Dr.Jit take what `find` finds, in this process and its children; to be called before it is imported.

    Where nothing is found Dr.Jit searches by itself: it may have a GPU, and then needs no LLVM.
    """
    if path := find():
        os.environ[VARIABLE] = path


def _in_wheel() -> Iterator[str]:
    """Files of the wheel, not the links to them, which are made when an interpreter starts for the first time."""
    try:
        files = metadata.files(WHEEL) or []
    except metadata.PackageNotFoundError:
        return
    for file in files:
        yield str(Path(str(file.locate())).resolve())


def _listed() -> Iterator[str]:
    """What the linker lists, for this kind of machine."""
    program = shutil.which("ldconfig", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin")
    if program is None:
        return
    done = subprocess.run([program, "-p"], capture_output=True, text=True, check=False)
    for kind, path in _LISTED.findall(done.stdout):
        if _OWN_KIND in kind:
            yield path


def _major(path: str) -> int:
    """Return the major version in a library's file name; 0 where there is none."""
    found = _NAME.match(Path(path).name)
    return int(found[1]) if found else 0


def _problem(path: str | None) -> str:
    """Say in a sentence why what was found will not do, as far as its name tells; empty if it may."""
    if path is None:
        return f"No LLVM shared library of version {MINIMUM} or newer was found: {ADVICE}."
    if not Path(path).exists():
        return f"{VARIABLE} is {path}, which does not exist: {ADVICE}."
    if 0 < (version := _major(os.path.realpath(path))) < MINIMUM:
        return f"{VARIABLE} is {path}, which is LLVM {version}: {ADVICE}."
    return ""


def main(arguments: list[str]) -> int:
    """Print the library, or the package that brings one; return the exit status."""
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

"""Which LLVM library is chosen, what `.ci/llvm` does where there is none, and that documents say the same."""

import os
import platform
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from sim.world import llvm

ROOT = Path(__file__).resolve().parents[3]


@dataclass(frozen=True)
class Machine:
    """A folder of programs that come first: a linker and a package manager that know only what is listed here.

    Attributes:
        folder: holds `bin`, and `listed` with the linker's answer.
        user: id of who is asking.
    """

    folder: Path
    user: int = 0

    def run(self, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
        own = {key: value for key, value in os.environ.items() if key not in (llvm.VARIABLE, "PYTHONPATH")}
        own |= {"PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}", "FOLDER": str(self.folder)}
        return subprocess.run(
            command, env=own | {"USER_ID": str(self.user)} | environment, capture_output=True, text=True,
            timeout=60, check=False,
        )  # fmt: skip

    def ensure(self, **environment: str) -> subprocess.CompletedProcess[str]:
        """What `.ci/llvm` does."""
        return self.run(str(ROOT / ".ci" / "llvm"), **environment)

    def chosen(self, **environment: str) -> str:
        return self.run("python3", str(ROOT / "sim" / "world" / "llvm.py"), **environment).stdout.strip()

    def called(self) -> list[str]:
        """What apt-get was called with."""
        path = self.folder / "called"
        return path.read_text().splitlines() if path.exists() else []


def listed(folder: Path, name: str) -> str:
    """A library, and the linker's line on it."""
    (folder / name).touch()
    return f"\t{name} (libc6,x86-64,AArch64) => {folder / name}\n"


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """A machine without any LLVM, the wheel hidden; apt-get brings 19."""
    programs = {
        "ldconfig": 'cat "$FOLDER/listed"',
        "id": 'echo "$USER_ID"',
        "apt-get": 'echo "$*" >> "$FOLDER/called"\n[ "$2" != install ] || cat "$FOLDER/brought" >> "$FOLDER/listed"',
        "python3": f'exec "{sys.executable}" -S "$@"',
    }
    (tmp_path / "bin").mkdir()
    for name, text in programs.items():
        path = tmp_path / "bin" / name
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)
    (tmp_path / "listed").write_text(f"2 libs found in cache\n{listed(tmp_path, 'libc.so.6')}")
    (tmp_path / "brought").write_text(listed(tmp_path, "libLLVM.so.19.1"))
    return Machine(tmp_path)


def has(machine: Machine, *names: str) -> None:
    with (machine.folder / "listed").open("a") as file:
        file.writelines(listed(machine.folder, name) for name in names)


OLD = ("libLLVM-15.so.1", "libLLVM-15.so", "libLLVM-14.so.1")


@pytest.mark.parametrize(
    ("names", "chosen", "installs"),
    [
        (OLD, "libLLVM.so.19.1", True),
        ((), "libLLVM.so.19.1", True),
        (("libLLVM-16.so.1",), "libLLVM.so.19.1", True),
        (("libLLVM-17.so.1", *OLD), "libLLVM-17.so.1", False),
        ((*OLD, "libLLVM-19.so.1"), "libLLVM-19.so.1", False),
        (("libLLVM.so.19.1",), "libLLVM.so.19.1", False),
        (("libLLVM-18.so.1", "libLLVM.so.20.1", "libLLVM-9.so.1"), "libLLVM.so.20.1", False),
    ],
    ids=["14 and 15", "none", "16", "14 to 17", "14, 15 and 19", "19", "9, 18 and 20"],
)
def test_as_root_the_package_is_installed_where_none_will_do(
    machine: Machine, names: tuple[str, ...], chosen: str, installs: bool
) -> None:
    has(machine, *names)
    done = machine.ensure()
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert machine.called() == (["-qq update", f"-qq install -y {llvm.PACKAGE}"] if installs else [])
    assert machine.chosen() == str(machine.folder / chosen)


@pytest.mark.parametrize("names", [OLD, ()], ids=["14 and 15", "none"])
def test_without_root_a_sentence_says_what_to_install(machine: Machine, names: tuple[str, ...]) -> None:
    has(machine, *names)
    done = Machine(machine.folder, user=1000).ensure()
    assert (done.returncode, done.stdout, machine.called()) == (1, "", [])
    assert done.stderr == f"No LLVM shared library of version {llvm.MINIMUM} or newer was found: {llvm.ADVICE}.\n"
    assert llvm.PACKAGE in done.stderr


def test_a_package_that_brings_none_is_told(machine: Machine) -> None:
    (machine.folder / "brought").write_text(listed(machine.folder, "libLLVM-15.so.1"))
    done = machine.ensure()
    assert done.returncode == 1 and done.stderr.startswith("No LLVM shared library of version")
    assert machine.called()


def test_a_library_of_another_kind_of_machine_or_gone_is_passed_over(machine: Machine) -> None:
    has(machine, "libLLVM.so.20.1", "libLLVM.so.21.1", "libLLVM-18.so.1")
    path = machine.folder / "listed"
    path.write_text(re.sub(r"(20\.1 \(libc6),[^)]*", r"\1", path.read_text()))  # 32 bit
    (machine.folder / "libLLVM.so.21.1").unlink()
    told_apart = platform.machine() in ("x86_64", "aarch64")
    assert machine.chosen() == str(machine.folder / ("libLLVM-18.so.1" if told_apart else "libLLVM.so.20.1"))


def test_what_the_user_names_is_taken(machine: Machine) -> None:
    has(machine, "libLLVM.so.19.1")
    mine = machine.folder / "libLLVM.so"
    mine.touch()
    assert machine.ensure(DRJIT_LIBLLVM_PATH=str(mine)).returncode == 0
    assert machine.chosen(DRJIT_LIBLLVM_PATH=str(mine)) == str(mine)


def test_what_the_user_names_in_vain_is_told_and_nothing_installed(machine: Machine) -> None:
    has(machine, "libLLVM.so.19.1")
    old, gone = machine.folder / "libLLVM-15.so.1", machine.folder / "libLLVM.so"
    old.touch()
    for path, problem in ((old, "is LLVM 15"), (gone, "does not exist")):
        done = machine.ensure(DRJIT_LIBLLVM_PATH=str(path))
        assert (done.returncode, done.stdout, machine.called()) == (1, "", [])
        assert done.stderr == f"{llvm.VARIABLE} is {path}, which {problem}: {llvm.ADVICE}.\n"


def install_wheel(site: Path, library: str) -> str:
    """As pip leaves it before an interpreter has made the links."""
    about = site / "karellen_llvm_core-1.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {llvm.WHEEL}\nVersion: 1\n")
    names = ("libLLVM.so", "libLTO.so.99.1", library)
    (about / "RECORD").write_text("".join(f"../lib/{name},,\n" for name in names))
    (site.parent / "lib").mkdir()
    for name in names[1:]:
        (site.parent / "lib" / name).touch()
    return str(site.parent / "lib" / library)


@pytest.mark.parametrize("name", ["libLLVM.so.19.1", "libLLVM-19.so"])
def test_the_wheel_comes_before_what_the_linker_lists(machine: Machine, name: str) -> None:
    has(machine, *OLD, "libLLVM.so.20.1")
    site = machine.folder / "site"
    library = install_wheel(site, name)
    done = machine.ensure(PYTHONPATH=str(site))
    assert (done.returncode, done.stderr, machine.called()) == (0, "", [])
    assert machine.chosen(PYTHONPATH=str(site)) == library


def test_a_wheel_that_is_too_old_is_passed_over(machine: Machine) -> None:
    has(machine, "libLLVM.so.20.1")
    site = machine.folder / "site"
    install_wheel(site, "libLLVM.so.16.0")
    assert machine.chosen(PYTHONPATH=str(site)) == str(machine.folder / "libLLVM.so.20.1")


def test_the_choice_is_left_to_drjit_where_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(llvm.VARIABLE, raising=False)
    monkeypatch.setattr(llvm, "find", lambda: None)
    llvm.choose()
    assert llvm.VARIABLE not in os.environ
    monkeypatch.setenv(llvm.VARIABLE, "")
    monkeypatch.setattr(llvm, "find", lambda: "/lib/libLLVM.so.19.1")
    llvm.choose()
    assert os.environ[llvm.VARIABLE] == "/lib/libLLVM.so.19.1"


def test_documents_and_pins_name_the_same_versions() -> None:
    documents = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    text = "\n".join(path.read_text() for path in documents)
    oldest = re.findall(r"LLVM (\d+)", text)
    assert oldest and set(oldest) == {str(llvm.MINIMUM)}
    packages = re.findall(r"libllvm\d+", text)
    assert packages and set(packages) == {llvm.PACKAGE}
    assert llvm.WHEEL in text and llvm.VARIABLE in text
    pins = re.findall(rf"{llvm.WHEEL}==[\d.]+", (ROOT / "pyproject.toml").read_text())
    assert len(pins) == 1 and pins[0] in (ROOT / "constraints.txt").read_text().splitlines()
    for name in (pins[0], llvm.PACKAGE):
        assert int(re.findall(r"\d+", name)[0]) >= llvm.MINIMUM

"""Run the fuzzer and report, from the root of the repository.

    python -m tests.fuzz decoder --inputs 10000000
    python -m tests.fuzz collector --events 1000000
    python -m tests.fuzz decoder --seconds 40 --corpus corpora/decoder

Ends with 1 where something was found: the input is left as a file (`--findings`), and `--replay FILE` tries one again
without atheris.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
from collections import Counter, deque
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

SEEDS = Path(__file__).resolve().parent / "corpus"
TARGETS = ("decoder", "collector")
MEMORY_MIB = 512
"""A process above that is a finding, ..."""
GROWTH_KIB = 32 << 10
"""... and so is one whose peak after the run is so much above the one after a tenth of it."""
HANG_S = 10
"""So is one input that takes longer."""
_COVERED = re.compile(r"cov: (\d+) ft: (\d+) corp: (\d+)/")


def main(arguments: Sequence[str]) -> int:
    """Fuzz as the command line says; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description="Fuzz the fronthaul with atheris.")
    parser.add_argument("target", choices=TARGETS)
    parser.add_argument("--inputs", type=int, default=0, help="end after so many inputs")
    parser.add_argument("--events", type=int, default=0, help="end after so many events")
    parser.add_argument("--seconds", type=float, default=0.0, help="end after so many seconds")
    parser.add_argument("--seed", type=int, default=0, help="of the fuzzer's draws; 0 takes another one each time")
    parser.add_argument("--corpus", type=Path, help="folder of inputs to go on from, and to add to")
    parser.add_argument("--findings", type=Path, default=Path("findings"), help="folder for an input that fails")
    parser.add_argument("--replay", type=Path, help="try one input, or all of a folder, and do not fuzz")
    given = parser.parse_args(arguments)
    if given.replay is not None:
        return replay(given.target, given.replay)
    if not (given.inputs or given.events or given.seconds):
        parser.error("give --inputs, --events or --seconds")
    with tempfile.TemporaryDirectory() as folder:
        return fuzz(given, given.corpus or Path(folder) / "corpus", Path(folder))


def replay(target: str, path: Path) -> int:
    """Try inputs in this process; what fails comes out as its exception."""
    check = import_module(f"tests.fuzz.{target}").check
    tally: Counter[str] = Counter()
    for file in sorted(path.iterdir()) if path.is_dir() else [path]:
        check(file.read_bytes(), tally)
    _print_tally(tally)
    return 0


def fuzz(given: argparse.Namespace, corpus: Path, folder: Path) -> int:
    """Start the engine, follow it, and report."""
    corpus.mkdir(parents=True, exist_ok=True)
    given.findings.mkdir(parents=True, exist_ok=True)
    words = folder / "words"
    known = import_module(f"tests.fuzz.{given.target}").WORDS
    words.write_text("".join(f'"{_escaped(word)}"\n' for word in known))
    command = [sys.executable, "-m", "tests.fuzz.engine", given.target]
    command += [str(given.inputs), str(given.events), str(given.seconds)]
    command += [f"-seed={given.seed}", f"-timeout={HANG_S}", f"-rss_limit_mb={MEMORY_MIB}"]
    command += [f"-dict={words}"] if known else []
    command += [f"-artifact_prefix={given.findings}/", str(corpus), str(SEEDS / given.target)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace")
    assert process.stdout is not None and process.stderr is not None
    tail: deque[str] = deque(maxlen=60)
    covered: Sequence[str | Any] = ("0", "0", "0")
    for line in process.stderr:
        tail.append(line)
        if found := _COVERED.search(line):
            covered = found.groups()
    printed = process.stdout.read()
    status = process.wait()
    figures = _figures(printed)
    if status or figures is None:
        sys.stderr.writelines(tail)
        print(f"{given.target}: a finding, exit status {status}; the input is in {given.findings}/", file=sys.stderr)
        return 1
    if not any(given.findings.iterdir()):
        given.findings.rmdir()
    return _report(given.target, figures, covered)


def _figures(printed: str) -> dict[str, Any] | None:
    """Return the engine's line of JSON; atheris prints beside it."""
    for line in reversed(printed.splitlines()):
        if line.startswith("{"):
            figures: dict[str, Any] = json.loads(line)
            return figures
    return None


def _report(target: str, figures: dict[str, Any], covered: Sequence[str]) -> int:
    seconds, grown_kib = figures["seconds"], figures["peak_kib"] - figures["early_kib"]
    print(f"{target}: nothing found")
    print(f"executions     {figures['executions']} in {seconds:.1f} s, {figures['executions'] / seconds:.0f} 1/s")
    if figures["events"] != figures["executions"]:
        print(f"events         {figures['events']}, {figures['events'] / seconds:.0f} 1/s")
    print(f"peak memory    {figures['early_kib'] >> 10} MiB after a tenth, {figures['peak_kib'] >> 10} MiB at the end")
    print(f"coverage       {covered[0]} edges, {covered[1]} features, {covered[2]} inputs kept")
    _print_tally(figures["tally"])
    if grown_kib > GROWTH_KIB:
        print(f"{target}: a finding, memory grew by {grown_kib >> 10} MiB", file=sys.stderr)
        return 1
    return 0


def _print_tally(tally: dict[str, int]) -> None:
    for what, count in sorted(tally.items()):
        print(f"  {what:<28}{count:>12}")


def _escaped(word: bytes) -> str:
    return "".join(f"\\x{byte:02x}" for byte in word)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""Whether a change kept every payload bit and every fix: digests of a dozen runs, held against those of before.

    python -m benchmarks.same_bytes before.json                    # on the old commit
    python -m benchmarks.same_bytes after.json --against before.json

A run's digests are taken over what its folder records: of each report its key, payload and side information, in the
order of keys, both ways; of each fix its snapshot, position and used base stations. Runs are those of the command
line, over both drivers, with every built-in scheme, impaired links, rounds and a drawn subset of base stations.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

PROCESS = "--driver process --no-controls --no-capture"
RAY = "--no-controls --no-capture --deadline 60000 --interval 200"
COMMANDS = {
    "ecc": f"--bits 4 --snapshots 200 {PROCESS}",
    "ecc, batch 16": f"--bits 3 --snapshots 200 --batch 16 --bundle 4 --interval 10 {PROCESS}",
    "ecc, lossless": f"--bits lossless --bs 3 --snapshots 60 {PROCESS}",
    "ecc, bfp9": f"--bits bfp9 --snapshots 60 {PROCESS}",
    "ecc, impaired": f"--bits 4 --snapshots 200 --loss 10% --duplicate 5% --corrupt 2% --delay 3ms --jitter 2ms "
    f"--rate 5mbit --deadline 9 {PROCESS}",
    "rss": f"--scheme rss --bits 8 --snapshots 200 {PROCESS}",
    "rss-rounds": f"--scheme rss-rounds --bits 8 --snapshots 100 {PROCESS}",
    "diffloc": f"--scheme diffloc --bs 7 --bits 8 --steps 2 --snapshots 40 {PROCESS}",
    "diffloc, one-shot": f"--scheme diffloc --where one-shot --snapshots 40 {PROCESS}",
    "diffloc, central": f"--scheme diffloc --where central --bits 6 --snapshots 20 {PROCESS}",
    "vinloc, subset": f"--scheme vinloc --bs 15 --random-subset --bits 4 --snapshots 40 {PROCESS}",
    "vinloc, street": f"--scheme vinloc --scenario paris-street-12 --layout 3 --bits 2 --snapshots 40 {PROCESS}",
    "ecc, Ray": f"--bits 4 --snapshots 60 {RAY}",
    "rss-rounds, Ray": f"--scheme rss-rounds --bits 8 --snapshots 30 {RAY}",
    "diffloc, Ray": f"--scheme diffloc --bs 7 --bits 8 --steps 2 --snapshots 10 {RAY}",
    "vinloc, Ray": f"--scheme vinloc --bs 12 --bits 4 --snapshots 20 {RAY}",
}


def digests(folder: Path) -> dict[str, str]:
    """Return digests of a run's payloads and fixes."""
    tables = [pq.read_table(path) for path in sorted((folder / "links").glob("bs-*.parquet"))]
    rows = pa.concat_tables(tables, promote_options="default")
    keys = ["bs", "epoch", "snapshot", "round", "direction"]
    columns = [*keys, "payload_bits", "payload", "side"]
    reports = {
        tuple(str(row[name]) for name in keys): "|".join(
            row[name].hex() if isinstance(row[name], bytes) else str(row[name]) for name in columns
        )
        for row in rows.select(columns).to_pylist()
    }
    sent = hashlib.sha256("\n".join(sorted(reports.values())).encode())
    fixes = pq.read_table(folder / "fixes.parquet").sort_by("snapshot")
    fixed = hashlib.sha256()
    for name in ("snapshot", "x_m", "y_m", "z_m"):
        fixed.update(np.ascontiguousarray(pc.fill_null(fixes[name], 0).to_numpy()).tobytes())
    fixed.update(json.dumps(fixes["used_bs"].to_pylist()).encode())
    counts = f"{len(reports)} reports, {len(fixes)} fixes"
    return {"payloads": sent.hexdigest()[:16], "fixes": fixed.hexdigest()[:16], "counts": counts}


def main() -> int:
    """Run all commands, write their digests, and compare them with earlier ones if given."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path)
    parser.add_argument("--against", type=Path)
    chosen = parser.parse_args()
    before = json.loads(chosen.against.read_text(encoding="utf-8")) if chosen.against else {}
    found, differ = {}, 0
    for name, words in COMMANDS.items():
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "cli.py", "emulate", *words.split(), "--output", folder, "--json"]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            found[name] = digests(next(Path(folder).iterdir()))
        same = before.get(name) == found[name]
        differ += bool(before) and not same
        verdict = ("same" if same else "DIFFERENT") if before else ""
        print(f"{name:18} {found[name]['payloads']} {found[name]['fixes']} {found[name]['counts']:28} {verdict}")
    chosen.output.write_text(json.dumps(found, indent=1) + "\n")
    return int(differ > 0)


if __name__ == "__main__":
    sys.exit(main())

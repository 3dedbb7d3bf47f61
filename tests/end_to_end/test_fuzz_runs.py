"""Whatever a run's folder holds, `inspect`, `replay` and `audit` give a result or one sentence.

Each case draws one change of one file: a column without values, missing, of another type, with other values, or a value
of `run.toml` or `summary.json` that is missing, null, or of another type.
"""

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tiny_world
from fuzzing import STRANGE, cases

import cli
from fronthaul.link.link_file import LinkPlan, with_options
from sim.emulate.emulator import emulate
from sim.plan.settings import EmulateSettings
from sim.world import store

COMMANDS = (
    ["inspect", "{run}"],
    ["inspect", "{run}", "--link", "0", "--from", "0"],
    ["inspect", "{run}", "--timeline"],
    ["inspect", "{run}", "--link", "1", "--frame", "2"],
    ["audit", "{run}"],
    ["replay", "{run}"],
)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run's folder with each kind of file: bundles over bad links, with captures."""
    folder = tmp_path_factory.mktemp("whole")
    links = with_options(LinkPlan(), {"delay": "1ms", "loss": "10%", "duplicate": "10%", "corrupt": "10%"})
    changes = {"links": links, "deadline_ms": 6.0, "interval_ms": 2.0, "bundle": 2, "batch": 2, "snapshots": 12}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store, "ASSET_FOLDER", folder / "assets")
        given = tiny_world.write(folder)
        fields = {name: getattr(given, name) for name in EmulateSettings.__dataclass_fields__}
        return emulate(EmulateSettings(**fields | changes)).folder


def without_values(column: pa.ChunkedArray, draw: random.Random) -> pa.Array:
    return pa.nulls(len(column), column.type)


def with_some_nulls(column: pa.ChunkedArray, draw: random.Random) -> pa.Array:
    values = [None if draw.random() < 0.3 else value for value in column.to_pylist()]
    return pa.array(values, column.type)


def retyped(column: pa.ChunkedArray, draw: random.Random) -> pa.Array:
    value = draw.choice(["text", b"\xff\xfe", 1.5, -3, True, [1, 2], {"a": 1}, float("nan")])
    return pa.array([value] * len(column))


def shuffled(column: pa.ChunkedArray, draw: random.Random) -> pa.Array:
    values = column.to_pylist()
    draw.shuffle(values)
    return pa.array(values, column.type)


def extreme(column: pa.ChunkedArray, draw: random.Random) -> pa.Array:
    kind = column.type
    if pa.types.is_integer(kind):
        top = 2 ** (kind.bit_width - (not pa.types.is_unsigned_integer(kind))) - 1
        value: Any = draw.choice([top, 0, 1])
    elif pa.types.is_list(kind):
        value = draw.choice([[], [0] * 9, [1]])
    else:
        extremes = {pa.string(): "", pa.binary(): b"", pa.float64(): draw.choice([float("inf"), -1e308])}
        value = extremes.get(kind)
    return pa.array([value if draw.random() < 0.5 else old for old in column.to_pylist()], kind)


CHANGES: tuple[Callable[[pa.ChunkedArray, random.Random], pa.Array], ...] = (
    without_values, with_some_nulls, retyped, shuffled, extreme,
)  # fmt: skip


def change_table(path: Path, draw: random.Random) -> str:
    table = pq.ParquetFile(path).read()
    index = draw.randrange(table.num_columns)
    name = table.column_names[index]
    if draw.random() < 0.15:
        pq.write_table(table.remove_column(index), path)
        return f"{path.name} without {name}"
    if draw.random() < 0.1:
        pq.write_table(table.slice(0, draw.choice([0, 1])), path)
        return f"{path.name} cut"
    change = draw.choice(CHANGES)
    pq.write_table(table.set_column(index, name, change(table.column(index), draw)), path)
    return f"{path.name}: {name} {change.__name__}"


def change_json(path: Path, draw: random.Random) -> str:
    value = json.loads(path.read_text(encoding="utf-8"))
    if draw.random() < 0.15:
        path.write_text(draw.choice(["[]", "null", "3", "[" * 100_000, '{"a": ' * 100_000, "NaN", '"x"']))
        return f"{path.name} replaced"
    at, names = value, []
    while isinstance(at, dict) and at:
        key = draw.choice(sorted(at))
        names.append(key)
        if not isinstance(at[key], dict) or draw.random() < 0.4:
            at[key] = draw.choice(STRANGE)
            break
        at = at[key]
    path.write_text(json.dumps(value), encoding="utf-8")
    return f"{path.name}: {'.'.join(names)}"


def change_toml(path: Path, draw: random.Random) -> str:
    lines = path.read_text(encoding="utf-8").splitlines()
    index = draw.choice([n for n, line in enumerate(lines) if "=" in line or line.startswith("[")])
    before = lines[index]
    values = ['""', '"x"', "-1", "0", "1e300", "nan", "inf", "true", "[]", "[1, 2]", "{a = 1}", "[" * 5000]
    after = f"{before.split('=')[0]}= {draw.choice(values)}" if "=" in before else "[other]"
    lines[index] = draw.choice([after, after, after, "", "a" + ".a" * 20_000 + " = 1"])
    path.write_text("\n".join(lines), encoding="utf-8")
    return f"{path.name}: {before} -> {lines[index][:40]}"


def change_bytes(path: Path, draw: random.Random) -> str:
    data = bytearray(path.read_bytes())
    for _ in range(draw.choice([1, 4, 40])):
        data[draw.randrange(len(data))] = draw.randrange(256)
    path.write_bytes(data[: draw.choice([len(data), len(data), draw.randrange(len(data))])])
    return f"{path.name}: bytes"


def changed(folder: Path, draw: random.Random) -> str:
    """Change one file of the folder; return which and how."""
    path = draw.choice([path for path in sorted(folder.rglob("*")) if path.suffix in HOW])
    return HOW[path.suffix](path, draw)


HOW: dict[str, Callable[[Path, random.Random], str]] = {
    ".parquet": change_table,
    ".json": change_json,
    ".toml": change_toml,
    ".pcapng": change_bytes,
}


def test_commands_take_any_folder(whole: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    refused = 0
    for case in cases(45):
        draw = random.Random(case)
        run = Path(shutil.copytree(whole, tmp_path / "run"))
        told = changed(run, draw)
        for command in COMMANDS if case % 5 == 0 else draw.sample(COMMANDS, 2):
            words = [word.format(run=run) for word in command]
            try:
                status = cli.main(words)
            except Exception as error:
                raise AssertionError(f"case {case}, {told}: {' '.join(command)}") from error
            out, err = capfd.readouterr()
            assert "Traceback" not in out + err, told
            assert status in (0, 1, 2), told
            assert status != 2 or len(err.strip().splitlines()) == 1, told
            refused += status == 2
        shutil.rmtree(run)
    assert refused > len(cases(45)) // 5

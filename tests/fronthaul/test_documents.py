"""TOML and JSON are bounded in size, nesting and time, and else what the standard library makes of them."""

import json
import time
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fronthaul.documents import MOST_DEPTH, parse_json, parse_toml, read_text
from fronthaul.errors import LocalError

TOML = [
    *("a = " + "[" * 50_000, "a = " + "[" * 50_000 + "]" * 50_000, "a = " + "{b = " * 5000, "[" * 100_000),
    *(
        "a" + ".a" * 20_000 + " = 1",
        "[a" + ".a" * 20_000 + "]",
        "a" + " . a" * 20_000 + "=1",
        '"a"' + '."b c"' * 20_000,
    ),
    *("a = {" + ".".join("b" * 31) + "= {" + ".".join("b" * 31) + " = 1}}", "a = 1" + "0" * 5000, 'a = """' * 30_000),
    *("a = '''" * 30_000, 'a = "' + '\\"' * 200_000, "a" * 2_000_000, "a " * 1_000_000, "\0", "a = 1\na = 2"),
]
JSON = ["[" * 100_000, '{"a":' * 100_000, "[" * 40 + "]" * 40, '"' + '\\"' * 200_000, "{", "", "1" + "0" * 5000]
values = st.recursive(
    st.integers(-(2**60), 2**60) | st.text(max_size=9) | st.booleans(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=12,
)


@pytest.mark.parametrize("number", range(len(TOML)))
def test_hostile_toml_is_refused_at_once(number: int) -> None:
    begin = time.process_time()
    with pytest.raises(LocalError):
        parse_toml(TOML[number])
    assert time.process_time() - begin < 3


@pytest.mark.parametrize("number", range(len(JSON)))
def test_hostile_json_is_refused_at_once(number: int) -> None:
    begin = time.process_time()
    with pytest.raises(LocalError):
        parse_json(JSON[number])
    assert time.process_time() - begin < 3


@given(values)
def test_json_is_read_as_it_was_written(value: object) -> None:
    assert parse_json(json.dumps(value)) == value


@pytest.mark.parametrize(
    "text",
    [
        'a = [\'[[[\', "{{{", \'\'\'[\n[\'\'\', """{\\""""" ] # [[[[\nb.c.d = 1.5',
        "x = " + "[" * MOST_DEPTH + "]" * MOST_DEPTH,
        "path = '" + "[" * 99 + "." * 99 + "'",
        'path = "' + "a." * 99 + '"  # ' + "a." * 99,
    ],
)
def test_brackets_and_dots_in_strings_and_comments_do_not_count(text: str) -> None:
    if text.startswith("x"):  # the table itself is the first level
        with pytest.raises(LocalError):
            parse_toml(text.replace("[", "[[", 1).replace("]", "]]", 1))
        text = text.replace("[", "", 1).replace("]", "", 1)
    assert parse_toml(text) == tomllib.loads(text)


def test_files_are_bounded(tmp_path: Path) -> None:
    with pytest.raises(LocalError, match="longer than 1000 B"):
        read_text(Path("/dev/zero"), 1000)
    (tmp_path / "latin").write_bytes(b"\xe9")
    with pytest.raises(LocalError, match="no text in UTF-8"):
        read_text(tmp_path / "latin")
    with pytest.raises(LocalError):
        read_text(Path("a\0b"))

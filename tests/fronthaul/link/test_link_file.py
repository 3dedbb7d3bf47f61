"""Link files: what parses, what wins, what is refused with which sentence, and what comes back."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fronthaul.errors import LocalError
from fronthaul.link.link_file import LinkPlan, link_plan, link_table, read_links, with_options
from fronthaul.link.link_model import GilbertElliott, LinkConfig, LinkModel
from fronthaul.message.messages import Direction

UP, DOWN = Direction.UP, Direction.DOWN

FILE = """
[default]
rate = "10mbit"
delay = "2ms"
queue = "64kB"

[up]
loss = "1%"

[down]
rate = "none"
queue = "none"

[bs.3]
delay = 0.005
jitter = "500us"
jitter_shape = "pareto"

[bs.3.up]
loss = 0.05
burst = "1% 25%"
outage = "2s-3s, 8s-8.5s"

[bs.4.down]
corrupt = "0.1%"
"""

OPTIONS = {
    "rate": "10mbit",
    "delay": "2ms",
    "jitter": "1ms",
    "jitter_shape": "normal",
    "loss": "1%",
    "burst": "2% 50%",
    "duplicate": "3%",
    "reorder": "4%",
    "corrupt": "5%",
    "outage": "1s-2s",
    "queue": "9kB",
}


def only(key: str, value: object) -> LinkConfig:
    """The configuration that one key gives, whatever it needs beside it."""
    needed = {"rate": 1.0, "delay": 1.0, "jitter": 1.0} | {key: value}
    config = link_plan({"default": needed}).config(0, UP)
    assert config is not None
    return config


def test_later_tables_win_key_by_key() -> None:
    plan = read_links(FILE)
    assert plan.config(0, UP) == LinkConfig(rate_bps=1e7, delay_s=0.002, queue_bytes=64_000, loss=0.01)
    assert plan.config(0, DOWN) == LinkConfig(delay_s=0.002)
    assert plan.config(3, UP) == LinkConfig(
        rate_bps=1e7,
        delay_s=0.005,
        jitter_s=0.0005,
        jitter="pareto",
        loss=0.05,
        burst=GilbertElliott(0.01, 0.25),
        outages=((2.0, 3.0), (8.0, 8.5)),
        queue_bytes=64_000,
    )
    assert plan.config(3, DOWN) == LinkConfig(delay_s=0.005, jitter_s=0.0005, jitter="pareto")
    assert plan.config(4, DOWN) == LinkConfig(delay_s=0.002, corrupt=0.001)
    assert plan.config(4, UP) == plan.config(0, UP)


def test_each_table_wins_over_those_before_it() -> None:
    shares = ((1, "default"), (2, "up"), (3, "bs.3"), (4, "bs.3.up"))
    for tables in (shares, shares[::-1]):
        for count in range(1, 5):
            text = "".join(f'[{name}]\nloss = "{share}%"\n' for share, name in tables if share <= count)
            config = read_links(text).config(3, UP)
            assert config is not None and config.loss == count / 100


@pytest.mark.parametrize("text", ["", "[default]", "[bs.3.up]\nloss = 0", '[up]\nrate = "none"\ndelay = "0"'])
def test_links_that_do_nothing_have_no_configuration(text: str) -> None:
    plan = read_links(text)
    assert [plan.config(bs, direction) for bs in (0, 3) for direction in Direction] == [None] * 4


@pytest.mark.parametrize(
    ("key", "value", "field", "expected"),
    [
        ("rate", "10mbit", "rate_bps", 1e7),
        ("rate", "1.5 Gbit", "rate_bps", 1.5e9),
        ("rate", "9600bit", "rate_bps", 9600.0),
        ("rate", "64kbit", "rate_bps", 64e3),
        ("rate", 125_000, "rate_bps", 125e3),
        ("delay", "3ms", "delay_s", 0.003),
        ("delay", "0.7us", "delay_s", 0.7e-6),
        ("delay", "85 ns", "delay_s", 85e-9),
        ("delay", "2s", "delay_s", 2.0),
        ("delay", "0", "delay_s", 0.0),
        ("delay", 0.25, "delay_s", 0.25),
        ("jitter", "1e1ms", "jitter_s", 0.01),
        ("loss", "1%", "loss", 0.01),
        ("loss", "0.01", "loss", 0.01),
        ("loss", ".5 %", "loss", 0.005),
        ("duplicate", 1, "duplicate", 1.0),
        ("reorder", "25%", "reorder", 0.25),
        ("corrupt", "1e-6", "corrupt", 1e-6),
        ("queue", "64kB", "queue_bytes", 64_000),
        ("queue", "2KiB", "queue_bytes", 2048),
        ("queue", "1.5MiB", "queue_bytes", 1_572_864),
        ("queue", "1MB", "queue_bytes", 1_000_000),
        ("queue", "900B", "queue_bytes", 900),
        ("queue", 900, "queue_bytes", 900),
        ("outage", "2s-3s", "outages", ((2.0, 3.0),)),
        ("outage", "0-500ms,1s-1.5s", "outages", ((0.0, 0.5), (1.0, 1.5))),
        ("outage", "1e-3s-2e-3s", "outages", ((0.001, 0.002),)),
        ("outage", [["2s", 3], [4.0, "5000ms"]], "outages", ((2.0, 3.0), (4.0, 5.0))),
        ("outage", "none", "outages", ()),
        ("burst", "1% 25%", "burst", GilbertElliott(0.01, 0.25)),
        ("burst", "1% 25% 0.5 0.1%", "burst", GilbertElliott(0.01, 0.25, 0.5, 0.001)),
        ("burst", {"to_bad": "1%", "to_good": 0.25, "loss_good": "2%"}, "burst", GilbertElliott(0.01, 0.25, 1, 0.02)),
        ("burst", "none", "burst", None),
        ("jitter_shape", "normal", "jitter", "normal"),
    ],
)
def test_values_parse(key: str, value: object, field: str, expected: object) -> None:
    """Exactly: "3ms" is the float 0.003, not 3 times the float 0.001."""
    assert getattr(only(key, value), field) == expected


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('[default]\ndealy = "2ms"', "[default] has an unknown key 'dealy' (did you mean 'delay'?)"),
        ('[bs.3.up]\nlos = "1%"', "[bs.3.up] has an unknown key 'los' (did you mean 'loss'?)"),
        ("[bs.3]\nupp = {}", "[bs.3] has an unknown key 'upp' (did you mean 'up'?)"),
        ("[defaults]", "the link file has no table [defaults] (did you mean 'default'?)"),
        ('rate = "1mbit"', "the link file has no table [rate] (known: default, up, down, bs)"),
        ("[bs.x]\nloss = 0", "[bs.x] is not a base station: its number is 0 to 65535"),
        ("[bs.65536]\nloss = 0", "[bs.65536] is not a base station: its number is 0 to 65535"),
        ("[bs.03]\nloss = 0", "[bs.03] is not a base station: its number is 0 to 65535"),
        ("up = 3", "[up] must be a table, not 3"),
        ("[bs]\n3 = 1", "[bs.3] must be a table, not 1"),
        (
            '[up]\ndelay = "2"',
            "[up]: delay '2' needs a unit (ns, us, ms, s), such as '2ms'",
        ),
        (
            '[up]\ndelay = "2 msec"',
            "[up]: delay '2 msec' has an unknown unit (did you mean 'ms'?), such as '2ms'",
        ),
        (
            '[up]\nrate = "2mbps"',
            "[up]: rate '2mbps' has an unknown unit (did you mean 'mbit'?), such as '10mbit'",
        ),
        (
            '[up]\nqueue = "2kb"',
            "[up]: queue '2kb' has an unknown unit (did you mean 'kB'?), such as '64kB'",
        ),
        (
            '[up]\nloss = "few"',
            "[up]: loss must be a number with a unit (%) such as '1%', not 'few'",
        ),
        ("[up]\nloss = true", "[up]: loss must be a number with a unit (%) such as '1%', not True"),
        ('[up]\nloss = "1ms"', "[up]: loss '1ms' has an unknown unit (known: %), such as '1%'"),
        ('[up]\nloss = "120%"', "every link, up: loss must be a probability from 0 to 1, not 1.2"),
        ("[bs.7]\nloss = -1", "the link of BS 7, up: loss must be a probability from 0 to 1, not -1.0"),
        ('[down]\nrate = "0mbit"', "every link, down: rate_bps must be a finite number above 0 bit/s, not 0.0"),
        ('[up]\njitter_shape = "parteo"', "[up]: there is no jitter_shape 'parteo' (did you mean 'pareto'?)"),
        ('[up]\nrate = "1mbit"\nqueue = "0.5B"', "[up]: queue must be whole bytes, not '0.5B'"),
        ('[up]\nburst = "1%"', "[up]: burst must be two to four probabilities"),
        ("[up]\nburst = { to_bad = 0.1 }", "[up]: burst lacks its key 'to_good'"),
        (
            "[up]\nburst = { tobad = 0.1 }",
            "[up]: burst has an unknown key 'tobad' (did you mean 'to_bad'?)",
        ),
        ('[up]\nburst = "1% 0%"', "[up]: burst.to_good must be above 0"),
        ('[up]\noutage = "2s"', "[up]: outage must be start and end such as '2s-3s, 8s-8.5s', not '2s'"),
        ('[up]\noutage = "-2s-3s"', "[up]: outage must be start and end"),
        ("[up]\noutage = 3", "[up]: outage must be start and end"),
        ('[up]\noutage = "3s-2s"', "every link, up: an outage starts at 0 s or later"),
        ('[up]\nqueue = "64kB"', "queue has no effect without rate"),
        ('[up]\nreorder = "1%"', "reorder has no effect without delay or jitter"),
        ('[up]\njitter_shape = "normal"', "jitter_shape has no effect without jitter"),
        ('[up]\nqueue = "1kB"\n[down]\nrate = "1mbit"', "queue has no effect without rate"),
        ("[up", "the link file is not TOML: "),
        ("up = 1" + 5000 * "0", "the link file is not TOML: "),
    ],
)
def test_errors_are_one_sentence(text: str, sentence: str) -> None:
    with pytest.raises(LocalError) as caught:
        read_links(text)
    assert str(caught.value).startswith(sentence)
    assert "\n" not in str(caught.value)


@given(
    st.sampled_from(sorted(OPTIONS)),
    st.one_of(
        st.text(max_size=12),
        st.from_regex(r"\A-?[0-9.]{1,4}(e-?[0-9]{1,9})? ?[a-zA-Z%]{0,4}(-[0-9]{1,2}s)?\Z"),
        st.floats(),
        st.integers(),
        st.booleans(),
        st.just(10**400),
        st.lists(st.one_of(st.floats(), st.text(max_size=3), st.lists(st.floats(), max_size=3)), max_size=3),
        st.dictionaries(st.sampled_from(["to_bad", "to_good", "x"]), st.floats(), max_size=3),
    ),
)
def test_whatever_stands_in_a_file_is_read_or_refused_in_one_sentence(key: str, value: object) -> None:
    try:
        config = link_plan({"up": {key: value}}).config(0, UP)
    except LocalError as error:
        assert "\n" not in str(error)
    else:
        assert config is None or LinkModel(config, seed=0, bs=0, direction=UP, epoch=0).control(60, 0) >= 0


def test_what_an_option_needs_may_stand_in_another_table() -> None:
    plan = read_links('[default]\nqueue = "9kB"\n[up]\nrate = "1mbit"')
    assert plan.config(1, UP) == LinkConfig(rate_bps=1e6, queue_bytes=9000)


def test_options_hold_for_both_directions_of_all_links() -> None:
    expected = LinkConfig(
        rate_bps=1e7,
        delay_s=0.002,
        jitter_s=0.001,
        jitter="normal",
        loss=0.01,
        burst=GilbertElliott(0.02, 0.5),
        duplicate=0.03,
        reorder=0.04,
        corrupt=0.05,
        outages=((1.0, 2.0),),
        queue_bytes=9000,
    )
    for plan in (LinkPlan(), read_links(FILE)):
        merged = with_options(plan, OPTIONS)
        assert {merged.config(bs, direction) for bs in (0, 3, 4) for direction in Direction} == {expected}


def test_an_option_overrides_every_table_and_leaves_other_keys_alone() -> None:
    plan = with_options(read_links(FILE), {"loss": "20%"})
    assert plan.config(3, UP) == LinkConfig(
        rate_bps=1e7,
        delay_s=0.005,
        jitter_s=0.0005,
        jitter="pareto",
        loss=0.2,
        burst=GilbertElliott(0.01, 0.25),
        outages=((2.0, 3.0), (8.0, 8.5)),
        queue_bytes=64_000,
    )
    assert plan.config(0, DOWN) == LinkConfig(delay_s=0.002, loss=0.2)
    assert with_options(read_links(FILE), {}) == read_links(FILE)
    undone = with_options(read_links(FILE), dict.fromkeys(("rate", "queue", "burst", "outage"), "none"))
    config = undone.config(3, UP)
    assert config is not None
    assert (config.rate_bps, config.queue_bytes, config.burst, config.outages) == (None, None, None, ())


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"delay": "2"}, "delay '2' needs a unit (ns, us, ms, s), such as '2ms'"),
        ({"loss": "2"}, "every link, up: loss must be a probability from 0 to 1, not 2.0"),
        ({"queue": "64kB"}, "queue has no effect without rate"),
        ({"jitter_shape": "gauss"}, "there is no jitter_shape 'gauss' (known: uniform, normal, exponential, pareto)"),
    ],
)
def test_bad_options_are_one_sentence(options: dict[str, str], sentence: str) -> None:
    with pytest.raises(LocalError) as caught:
        with_options(LinkPlan(), options)
    assert str(caught.value) == sentence


# -------------------------------------------------------------------------------------------------------- round trip

chances = st.one_of(st.sampled_from([0.0, 0.01, 1.0]), st.floats(0, 1))
times = st.one_of(st.sampled_from([0.0, 0.002, 0.0005, 85e-9, 12.5]), st.floats(0, 1e6))


@st.composite
def outages(draw: st.DrawFn) -> list[list[float]]:
    edges = sorted(draw(st.sets(times, max_size=6)))
    return [[edges[at], edges[at + 1]] for at in range(0, len(edges) - 1, 2)]


bursts = st.fixed_dictionaries(
    {"to_bad": chances, "to_good": st.floats(1e-6, 1)}, optional={"loss_bad": chances, "loss_good": chances}
)
options = st.fixed_dictionaries(
    {"rate": st.one_of(st.sampled_from([1e7, 125e3, 2.5e9]), st.floats(1e-3, 1e12)), "delay": st.floats(1e-9, 1e3)},
    optional={
        "jitter": st.floats(1e-9, 1e3),
        "loss": chances,
        "burst": st.one_of(st.just("none"), bursts),
        "duplicate": chances,
        "reorder": chances,
        "corrupt": chances,
        "outage": outages(),
        "queue": st.one_of(st.just("none"), st.integers(1, 1 << 40)),
    },
)
tables = st.fixed_dictionaries(
    {},
    optional={
        "default": options,
        "up": options,
        "down": options,
        "bs": st.dictionaries(
            st.integers(0, 65535).map(str),
            st.builds(lambda own, ways: own | ways, options, st.dictionaries(st.sampled_from(["up", "down"]), options)),
            max_size=3,
        ),
    },
)


@given(tables)
def test_plans_come_back_exactly(table: dict[str, Any]) -> None:
    plan = link_plan(table)
    assert link_plan(link_table(plan)) == plan
    assert link_table(link_plan(link_table(plan))) == link_table(plan)


def test_a_recorded_plan_is_readable() -> None:
    assert link_table(read_links(FILE)) == {
        "default": {"rate": "10mbit", "delay": "2ms", "queue": "64kB"},
        "up": {"loss": 0.01},
        "down": {"rate": "none", "queue": "none"},
        "bs": {
            "3": {
                "delay": "5ms",
                "jitter": "500us",
                "jitter_shape": "pareto",
                "up": {
                    "loss": 0.05,
                    "burst": {"to_bad": 0.01, "to_good": 0.25, "loss_bad": 1.0, "loss_good": 0.0},
                    "outage": [["2s", "3s"], ["8s", "8.5s"]],
                },
            },
            "4": {"down": {"corrupt": 0.001}},
        },
    }


def test_plans_cross_a_process_border() -> None:
    plan = read_links(FILE)
    assert pickle.loads(pickle.dumps(plan)) == plan

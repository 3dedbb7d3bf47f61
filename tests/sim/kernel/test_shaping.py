"""What tc is told, and what is refused, of a link's numbers: no root and no kernel needed."""

from dataclasses import replace

import pytest

from fronthaul.link.link_config import GilbertElliott, LinkConfig
from fronthaul.link.link_file import link_plan
from fronthaul.message.messages import Direction
from sim.errors import UserError
from sim.kernel.probe import NetnsSupport
from sim.kernel.shaping import check_shapeable, qdiscs

ALL = NetnsSupport(root=True, namespaces=True, veth=True, tbf=True, htb=True, netem=True, nft_or_iptables=True)
NO_NETEM = replace(ALL, netem=False)
NO_TBF = replace(ALL, tbf=False)
NO_LOSS = replace(ALL, netem=False, nft_or_iptables=False)
NO_VETH = NetnsSupport(root=True, namespaces=True, missing=("The kernel has no veth (so).",))


@pytest.mark.parametrize(
    ("support", "table", "sentence"),
    [
        (NO_NETEM, {"default": {"delay": "1ms"}}, "The kernel has no netem: delay (BS 3, up) cannot be shaped by"),
        (NO_NETEM, {"down": {"duplicate": "1%", "corrupt": "1%"}}, "no netem: duplicate, corrupt (BS 3, down) cannot"),
        (NO_NETEM, {"default": {"burst": "1% 10%"}}, "no netem: burst (BS 3, up)"),
        (
            NO_NETEM,
            {"bs": {"3": {"down": {"jitter": "1ms", "delay": "1ms", "reorder": "1%"}}}},
            "no netem: delay, jitter, reorder (BS 3, down)",
        ),
        (NO_TBF, {"up": {"rate": "1mbit"}}, "The kernel has no tbf: rate (BS 3, up) cannot"),
        (NO_LOSS, {"up": {"loss": "1%"}}, "neither nft nor iptables drops packets at random: loss (BS 3, up)"),
        (ALL, {"up": {"jitter": "1ms", "jitter_shape": "exponential"}}, "netem knows no exponential jitter (BS 3, up)"),
        (ALL, {"up": {"rate": "1mbit", "queue": "1kB"}}, "A queue of 1000 B (BS 3, up) takes no full Ethernet frame"),
        (ALL, {"up": {"outage": "1s-2s"}}, "The outages of BS 3 differ between up and down:"),
        (NO_VETH, {}, "The kernel has no veth (so): leave out --netns to have the link model shape the links"),
    ],
)
def test_what_the_kernel_cannot_do_is_refused_in_a_sentence(
    support: NetnsSupport, table: dict[str, object], sentence: str
) -> None:
    plan = link_plan(table)
    with pytest.raises(UserError) as caught:
        check_shapeable({(3, way): plan.config(3, way) for way in Direction}, support)
    assert sentence in str(caught.value) and str(caught.value).endswith(".")


def test_what_the_kernel_can_do_is_not_refused() -> None:
    everything = {"rate": "1mbit", "delay": "1ms", "jitter": "1ms", "loss": "1%", "burst": "1% 10%", "queue": "64kB"}
    everything |= {"duplicate": "1%", "reorder": "1%", "corrupt": "1%", "outage": "1s-2s"}
    for support, table in ((ALL, everything), (NO_NETEM, {"rate": "1mbit", "loss": "1%", "outage": "1s-2s"})):
        plan = link_plan({"default": table})
        check_shapeable({(3, way): plan.config(3, way) for way in Direction}, support)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (LinkConfig(), []),
        (
            LinkConfig(rate_bps=20e6),
            ["root handle 10: tbf rate 20000000bit burst 6152 limit 1073741824 overhead 24"],
        ),
        (
            LinkConfig(rate_bps=1e9, queue_bytes=64_000, delay_s=0.002),
            [
                "root handle 1: netem limit 1000000 delay 2000.000us",
                "parent 1:1 handle 10: tbf rate 1000000000bit burst 125000 limit 64000 overhead 24",
            ],
        ),
        (
            LinkConfig(delay_s=0.002, jitter_s=0.001, loss=0.01, reorder=0.25),
            [
                "root handle 1: netem limit 1000000 delay 3000.000us 1000.000us "
                "loss random 1.0000000% reorder 25.0000000%"
            ],
        ),
        (
            LinkConfig(jitter_s=0.003, jitter="normal", duplicate=0.001, corrupt=0.002),
            [
                "root handle 1: netem limit 1000000 delay 3000.000us 1000.000us distribution normal "
                "duplicate 0.1000000% corrupt 0.2000000%"
            ],
        ),
        (
            LinkConfig(jitter_s=0.001, jitter="pareto", loss=0.5, burst=GilbertElliott(0.01, 0.25, 0.5, 0.0)),
            [
                "root handle 1: netem limit 1000000 delay 1000.000us 1732.051us distribution pareto "
                "loss gemodel 1.0000000% 25.0000000% 75.0000000% 50.0000000%"
            ],
        ),
        (LinkConfig(reorder=0.1), []),  # no delay to skip
    ],
)
def test_what_tc_is_told(config: LinkConfig, expected: list[str]) -> None:
    assert qdiscs(config, netem=True) == [text for text in expected if text]


def test_without_netem_tc_is_told_of_the_rate_only() -> None:
    config = LinkConfig(rate_bps=1e6, loss=0.1)
    assert qdiscs(config, netem=False) == [
        "root handle 10: tbf rate 1000000bit burst 6152 limit 1073741824 overhead 24"
    ]

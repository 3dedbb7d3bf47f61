"""What the user's words about a payload come to."""

import pytest

from fronthaul.errors import LocalError
from fronthaul.payload.choice import PayloadChoice


@pytest.mark.parametrize(
    ("choice", "label", "forwarded", "finest", "words"),
    [
        (PayloadChoice(4), "b4", None, 4, "4 bits"),
        (PayloadChoice(), "lossless", "complex64", 16, "lossless payloads"),
        (PayloadChoice(None, "iq16"), "iq16", "iq16", 16, "lossless payloads"),
        (PayloadChoice(None, "bfp9"), "bfp9", "bfp9", 16, "lossless payloads"),
    ],
)
def test_a_choice_says_what_follows_from_it(
    choice: PayloadChoice, label: str, forwarded: str | None, finest: int, words: str
) -> None:
    assert (choice.label, choice.forwarded, choice.bits_or(16), choice.words) == (label, forwarded, finest, words)
    assert choice.is_plain == (label in ("b4", "lossless"))


@pytest.mark.parametrize("forward", ["iq12", "bfp17", ""])
def test_what_no_codec_knows_is_refused(forward: str) -> None:
    with pytest.raises(LocalError, match="forwarded as complex64, iq16 or bfp1 to bfp16"):
        PayloadChoice(None, forward)

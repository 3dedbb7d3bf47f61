"""What the user wants a report to carry: the scheme's numbers in so many bits each, or the channel itself."""

from __future__ import annotations

from dataclasses import dataclass

from fronthaul.codec.iq import iq_codec


@dataclass(frozen=True, slots=True)
class PayloadChoice:
    """Made once from the user's words; whoever wants to know more asks it.

    Attributes:
        bits: B of each number [bit]; None sends them unquantised, or the channel itself where the scheme does that.
        forward: how the channel itself is then sent, a name that `fronthaul.codec.iq.iq_codec` knows; complex64 is
            lossless.

    Raises:
        LocalError: there is no such `forward`.
    """

    bits: int | None = None
    forward: str = "complex64"

    def __post_init__(self) -> None:
        iq_codec(self.forward, 1, 1)

    @property
    def forwarded(self) -> str | None:
        """How the channel itself is sent; None where numbers are quantised."""
        return self.forward if self.bits is None else None

    @property
    def is_plain(self) -> bool:
        """Whether every scheme knows it: bits, or lossless."""
        return self.forward == "complex64"

    @property
    def label(self) -> str:
        """It in a word, such as b4, lossless or iq16."""
        if self.bits is not None:
            return f"b{self.bits}"
        return "lossless" if self.is_plain else self.forward

    @property
    def words(self) -> str:
        """It in a sentence."""
        return "lossless payloads" if self.bits is None else f"{self.bits} bits"

    def bits_or(self, finest: int) -> int:
        """Return B; `finest`, the resolution that stands in for lossless, where there is none."""
        return finest if self.bits is None else self.bits

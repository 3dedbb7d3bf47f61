"""The user's choice of payload: the scheme's numbers at a given number of bits each, or the channel itself."""

from __future__ import annotations

from dataclasses import dataclass

from fronthaul.codec.iq import iq_codec


@dataclass(frozen=True, slots=True)
class PayloadChoice:
    """What a report carries, as chosen by the user.

    Attributes:
        bits: B, bits per number [bit]; None sends the numbers unquantised, or the channel itself in schemes that
            forward it.
        forward: codec of the forwarded channel, a name that `fronthaul.codec.iq.iq_codec` knows; complex64 is
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
        """Codec of the forwarded channel; None if numbers are quantised."""
        return self.forward if self.bits is None else None

    @property
    def is_plain(self) -> bool:
        """Whether every scheme supports the choice: quantised, or lossless."""
        return self.forward == "complex64"

    @property
    def label(self) -> str:
        """Short name of the choice, such as b4, lossless or iq16."""
        if self.bits is not None:
            return f"b{self.bits}"
        return "lossless" if self.is_plain else self.forward

    @property
    def words(self) -> str:
        """Description for use in a sentence."""
        return "lossless payloads" if self.bits is None else f"{self.bits} bits"

    def bits_or(self, finest: int) -> int:
        """Return B, or `finest`, the resolution that stands in for lossless, if B is None."""
        return finest if self.bits is None else self.bits

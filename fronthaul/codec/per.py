"""Packed Encoding Rules of ASN.1 (X.691), as far as measurement reports of NRPPa need them: aligned and unaligned.

A writer appends fields, a reader takes them in the same order. What differs: in the aligned variant, a whole number of
more than 255 values starts at an octet and takes whole octets, with its length before it from three octets on
(X.691, 11.5.7); in the unaligned one, it has as few bits as its range.

    range            aligned                                unaligned
    2 … 255          least bits                             least bits
    256              one octet, aligned                     8 bits
    257 … 65536      two octets, aligned                    least bits
    more             octets − 1 in least bits, then aligned least bits
                     octets without leading zeros
"""

from __future__ import annotations

from bitarray import bitarray
from bitarray.util import ba2int, int2ba, zeros

from fronthaul.errors import LocalError, RemoteError
from fronthaul.message.messages import Payload


def _octets(number: int) -> int:
    return max(1, (number.bit_length() + 7) // 8)


class PerWriter:
    """Fields to bits."""

    def __init__(self, *, aligned: bool) -> None:
        self._bits, self._aligned = bitarray(), aligned

    def payload(self) -> Payload:
        """Return what was written, without padding at its end."""
        return Payload(self._bits.tobytes(), len(self._bits))

    def bits(self, value: int, width: int) -> None:
        """Write a field of `width` bits, such as the preamble of a sequence."""
        if width:
            self._bits += int2ba(value, width)

    def pad(self) -> None:
        """Go to the next octet, as between two values that are packed by themselves."""
        self._bits += zeros(-len(self._bits) % 8)

    def align(self) -> None:
        """Go to the next octet, in the aligned variant."""
        if self._aligned:
            self.pad()

    def whole(self, value: int, most: int) -> None:
        """Write a whole number of the range 0 … `most`.

        Raises:
            LocalError: it is outside.
        """
        if not 0 <= value <= most:
            raise LocalError(f"{value} is not in 0 … {most}")
        if not self._aligned or most < 255:
            self.bits(value, most.bit_length())
        elif most < 65536:
            self.align()
            self.bits(value, 8 if most == 255 else 16)
        else:
            self.whole(_octets(value) - 1, _octets(most) - 1)
            self.align()
            self.bits(value, 8 * _octets(value))

    def open_type(self, inner: PerWriter) -> None:
        """Write a value of open type: its length in octets, below 128, and its octets.

        Raises:
            LocalError: it is longer.
        """
        data = inner.payload().data or b"\0"
        if len(data) > 127:
            raise LocalError(f"an open type of {len(data)} octets has a long form")
        self.align()
        self.bits(len(data), 8)
        more = bitarray()
        more.frombytes(data)
        self._bits += more


class PerReader:
    """Bits to fields, in the order in which they were written."""

    def __init__(self, payload: Payload, *, aligned: bool) -> None:
        self._bits, self._aligned, self._at = bitarray(), aligned, 0
        self._bits.frombytes(payload.data)
        del self._bits[payload.bits :]

    def bits(self, width: int) -> int:
        """Read a field of `width` bits.

        Raises:
            RemoteError: the payload ends within it.
        """
        if self._at + width > len(self._bits):
            raise RemoteError("length", f"the payload of {len(self._bits)} bits ends within a field")
        self._at += width
        return ba2int(self._bits[self._at - width : self._at]) if width else 0

    def expect(self, value: int, width: int, what: str) -> None:
        """Read a field that has one value in the reports of this project.

        Raises:
            RemoteError: it has another, or the payload ends within it.
        """
        if (found := self.bits(width)) != value:
            raise RemoteError("field", f"{what} is {found}, not {value}")

    def pad(self) -> None:
        """Go to the next octet, as between two values that are packed by themselves."""
        self.expect(0, -self._at % 8, "padding")

    def align(self) -> None:
        """Go to the next octet, in the aligned variant."""
        if self._aligned:
            self.pad()

    def whole(self, most: int) -> int:
        """Read a whole number of the range 0 … `most`.

        Raises:
            RemoteError: it is outside, or the payload ends within it.
        """
        if not self._aligned or most < 255:
            value = self.bits(most.bit_length())
        elif most < 65536:
            self.align()
            value = self.bits(8 if most == 255 else 16)
        else:
            octets = self.whole(_octets(most) - 1) + 1
            self.align()
            value = self.bits(8 * octets)
        if value > most:
            raise RemoteError("field", f"{value} is not in 0 … {most}")
        return value

    def expect_whole(self, value: int, most: int, what: str) -> None:
        """Read a whole number of the range 0 … `most` that has one value in the reports of this project.

        Raises:
            RemoteError: it has another, or the payload ends within it.
        """
        if (found := self.whole(most)) != value:
            raise RemoteError("field", f"{what} is {found}, not {value}")

    def open_type(self) -> PerReader:
        """Read a value of open type; return a reader of its octets.

        Raises:
            RemoteError: the payload ends within it, or its length has a long form.
        """
        self.align()
        count = self.bits(8)
        if count > 127:
            raise RemoteError("length", "an open type has a long form")
        data = bytes(self.bits(8) for _ in range(count))
        return PerReader(Payload(data, 8 * count), aligned=self._aligned)

    def end(self) -> None:
        """Check that nothing is left but less than an octet of padding zeros.

        Raises:
            RemoteError: something is.
        """
        if len(self._bits) - self._at >= 8 or self._bits[self._at :].any():
            raise RemoteError("length", f"{len(self._bits) - self._at} bits are left behind the report")

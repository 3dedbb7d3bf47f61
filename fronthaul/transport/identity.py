"""The name of a base station, such as "bs-003": used for its files, and on its link if there are no keys."""

MARK_BYTES = 11
"""What `connection_name` adds to the name of the base station [B]."""


def identity(bs: int) -> bytes:
    """Return the name of `bs`."""
    return b"bs-%03d" % bs


def bs_of(peer: bytes) -> int | None:
    """Return the base station that has this name, the inverse of `identity`; None for any other name."""
    digits = peer.removeprefix(b"bs-")
    if not digits.isdigit() or len(digits) > 5 or int(digits) > 0xFFFF or identity(int(digits)) != peer:
        return None
    return int(digits)


def connection_name(bs: int, mark: bytes, number: int) -> bytes:
    """Return the name of a connection of `bs`, such as "bs-003/9f2c01aa00".

    Args:
        bs: base station.
        mark: 4 B drawn by its process, by which two that claim the same base station are told apart.
        number: of the process's connections before; its last byte counts.
    """
    return identity(bs) + b"/" + mark.hex().encode() + b"%02x" % (number & 0xFF)


def claimed(name: bytes) -> tuple[int | None, bytes]:
    """Return the base station that a connection's name claims, None if it names none, and the process's mark in hex."""
    bs = bs_of(name[:-MARK_BYTES]) if name[-MARK_BYTES:].startswith(b"/") else None
    return bs, name[1 - MARK_BYTES : -2]

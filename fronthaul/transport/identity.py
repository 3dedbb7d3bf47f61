"""The name of a base station, "bs-003": what it calls itself on its link, and what its files are called by."""


def identity(bs: int) -> bytes:
    """Return the name by which the cloud knows the connection of `bs` where there are no keys."""
    return b"bs-%03d" % bs


def bs_of(peer: bytes) -> int | None:
    """Undo `identity`: the base station at the other end of a connection; None for any other name."""
    digits = peer.removeprefix(b"bs-")
    if not digits.isdigit() or len(digits) > 5 or int(digits) > 0xFFFF or identity(int(digits)) != peer:
        return None
    return int(digits)

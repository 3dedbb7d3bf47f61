"""The name of a base station, such as "bs-003": used on its link and for its files."""


def identity(bs: int) -> bytes:
    """Return the name of `bs`, by which the cloud identifies its connection if there are no keys."""
    return b"bs-%03d" % bs


def bs_of(peer: bytes) -> int | None:
    """Return the base station that has this name, the inverse of `identity`; None for any other name."""
    digits = peer.removeprefix(b"bs-")
    if not digits.isdigit() or len(digits) > 5 or int(digits) > 0xFFFF or identity(int(digits)) != peer:
        return None
    return int(digits)

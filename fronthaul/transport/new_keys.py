"""Creates keys for a whole network: ephemeral ones for a run, or key files (listed in `keys`)."""

from __future__ import annotations

import os
from pathlib import Path

from fronthaul.errors import LocalError
from fronthaul.transport.identity import identity
from fronthaul.transport.keys import CloudKeys, EdgeKeys, KeyRing, edge_key_file
from fronthaul.transport.zeromq import new_key_pair


def ephemeral(bs: int) -> KeyRing:
    """Return new keys for base stations 0 ... `bs` - 1 and the cloud, without writing them to disk."""
    public, secret = new_key_pair()
    pairs = [new_key_pair() for _ in range(bs)]
    cloud = CloudKeys(public, secret, {own: number for number, (own, _) in enumerate(pairs)})
    return KeyRing(cloud, {number: EdgeKeys(public, *pair) for number, pair in enumerate(pairs)})


def write_keys(folder: Path, bs: int) -> None:
    """Create and write keys for base stations 0 ... `bs` - 1 and the cloud; only the owner can read secret ones.

    Raises:
        LocalError: the folder is not empty, or cannot be written.
    """
    ring = ephemeral(bs)
    allowed = "".join(f'{identity(number).decode()} = "{_text(keys.public)}"\n' for number, keys in ring.edges.items())
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise LocalError(f"the folder {folder} is not empty: keys are written to a folder of their own")
        # Written first: it fails if somebody else has begun to write keys meanwhile.
        _write(folder / "cloud.key", _pair(ring.cloud.public, ring.cloud.secret), 0o600)
        _write(folder / "cloud.pub", _text(ring.cloud.public) + "\n", 0o644)
        _write(folder / "allowed.toml", allowed, 0o644)
        for number, keys in ring.edges.items():
            _write(edge_key_file(folder, number), _pair(keys.public, keys.secret), 0o600)
    except FileExistsError as error:
        raise LocalError(f"there are keys in {folder} already: remove them, or choose another folder") from error
    except OSError as error:
        raise LocalError(f"keys cannot be written to {folder}: {error.strerror}") from error


def _text(key: bytes) -> str:
    return key.decode("ascii")


def _pair(public: bytes, secret: bytes) -> str:
    return f'public = "{_text(public)}"\nsecret = "{_text(secret)}"\n'


def _write(path: Path, text: str, mode: int) -> None:
    # At no time readable by others, and never overwriting a file.
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(text)

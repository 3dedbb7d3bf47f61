"""New keys for a whole network: ephemeral ones for a run, or files that stay (`keys` says which)."""

from __future__ import annotations

import os
from pathlib import Path

from fronthaul.errors import LocalError
from fronthaul.transport.identity import identity
from fronthaul.transport.keys import CloudKeys, EdgeKeys, KeyRing, edge_key_file
from fronthaul.transport.zeromq import new_key_pair


def ephemeral(bs: int) -> KeyRing:
    """Make keys for base stations 0 ... `bs` - 1, which are written nowhere."""
    public, secret = new_key_pair()
    pairs = [new_key_pair() for _ in range(bs)]
    cloud = CloudKeys(public, secret, {own: number for number, (own, _) in enumerate(pairs)})
    return KeyRing(cloud, {number: EdgeKeys(public, *pair) for number, pair in enumerate(pairs)})


def write_keys(folder: Path, bs: int) -> None:
    """Make keys for base stations 0 ... `bs` - 1 and write them, secrets readable by their owner alone.

    Raises:
        LocalError: there are keys already, or the folder cannot be written.
    """
    ring = ephemeral(bs)
    allowed = "".join(f'{identity(number).decode()} = "{_text(keys.public)}"\n' for number, keys in ring.edges.items())
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # First, for its name is what tells that there are keys already.
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
    # Never for a moment readable by others, nor over what is there.
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(text)

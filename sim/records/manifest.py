"""The manifest of a run: the SHA-256 of each of its files, written when the run ends, and signed if there is a key.

    manifest.json    {"files": {"links/bs-000.parquet": {"bytes": 812, "sha256": "…"}, …}}
    manifest.sig     HMAC-SHA256 of manifest.json under the key (RFC 2104), in hexadecimal

Without a signature the manifest shows damage and careless changes: whoever changes a file on purpose can write it
again. With one, that takes the key.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fronthaul.documents import parse_json
from fronthaul.errors import LocalError
from sim.errors import UserError
from sim.files import write_json, write_text

KEY_BYTES = 32
"""Length of a new key [B]; the shortest that is accepted."""


@dataclass(frozen=True)
class Manifest:
    """Manifest of a run's folder."""

    folder: Path

    @property
    def path(self) -> Path:
        """The manifest."""
        return self.folder / "manifest.json"

    @property
    def signature(self) -> Path:
        """Its signature."""
        return self.folder / "manifest.sig"

    def write(self, key: bytes | None = None) -> None:
        """Write the manifest of all files that are there; sign it with `key` if given."""
        self.signature.unlink(missing_ok=True)
        write_json(self.path, {"files": {name: _entry(path) for name, path in self._files().items()}})
        if key is not None:
            write_text(self.signature, _signature(key, self.path.read_bytes()) + "\n")

    def problems(self, key: bytes | None = None) -> tuple[list[str], str]:
        """Return what contradicts the manifest, and a sentence on what does not.

        Raises:
            UserError: the manifest is damaged.
        """
        try:
            data = self.path.read_bytes()
            told: dict[str, Any] = dict(parse_json(data.decode())["files"])
        except (OSError, LocalError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"{self.path} cannot be read: it is missing or damaged.") from error
        found = self._files()
        problems = [f"{name} is gone" for name in told if name not in found]
        problems += [f"{name} was added" for name in found if name not in told]
        for name, path in found.items():
            if path.is_symlink():
                problems.append(f"{name} is a link to another file")
            elif name in told and told[name] != _entry(path):
                problems.append(f"{name} was changed")
        signed = self.signature.is_file()
        if key is not None and not signed:
            problems.append(f"there is no {self.signature.name}, the signature to check")
        elif key is not None and not hmac.compare_digest(
            self.signature.read_bytes().strip(), _signature(key, data).encode()
        ):
            problems.append(f"{self.signature.name} is not this key's signature of {self.path.name}")
        state = "; signed with this key" if key else "; signed, but no key was given to check it" if signed else ""
        return problems, f"{len(found)} files as written{state}"

    def _files(self) -> dict[str, Path]:
        """Return all other files and links in the folder, by name, in order."""
        own = {self.path, self.signature}
        paths = [path for path in sorted(self.folder.rglob("*")) if path.is_symlink() or path.is_file()]
        return {path.relative_to(self.folder).as_posix(): path for path in paths if path not in own}


def signing_key(path: Path) -> bytes:
    """Return the key in a file; a file that does not exist is made, with a new key, readable by its owner alone.

    Raises:
        UserError: the file cannot be read or made.
    """
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return read_key(path)
    except OSError as error:
        raise UserError(f"Cannot write the key {path}: {error.strerror}.") from error
    with os.fdopen(descriptor, "w") as file:
        file.write(secrets.token_hex(KEY_BYTES) + "\n")
    return read_key(path)


def read_key(path: Path) -> bytes:
    """Return the key in a file.

    Raises:
        UserError: the file cannot be read, or holds no key.
    """
    try:
        key = bytes.fromhex(path.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read as a key, hexadecimal digits as `--sign` makes them.") from error
    if len(key) < KEY_BYTES:
        raise UserError(f"{path} holds a key of {len(key)} B; it takes {KEY_BYTES} or more.")
    return key


def _entry(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        return {"bytes": path.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}


def _signature(key: bytes, data: bytes) -> str:
    return hmac.new(key, data, hashlib.sha256).hexdigest()

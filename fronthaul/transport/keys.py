"""Keys of the fronthaul: who may connect, and as which base station.

Each end has a Curve25519 key pair. A base station knows the cloud's public key. The cloud knows the public key of each
base station, and refuses all other keys. Keys are written in Z85, 40 characters for 32 B.

    cloud.key       the cloud's pair, a secret        at the cloud only
    allowed.toml    public keys by base station       at the cloud
    cloud.pub       the cloud's public key            everywhere
    bs-003.key      a base station's pair, a secret   at that base station only

`new_keys` creates them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from fronthaul.documents import parse_toml
from fronthaul.errors import LocalError
from fronthaul.transport.identity import bs_of, identity

Z85 = b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#"
"""The Z85 alphabet (ZeroMQ RFC 32): no character needs escaping within quotes."""
KEY_CHARACTERS = 40
"""Length of a key in Z85."""


@dataclass(frozen=True, slots=True)
class EdgeKeys:
    """What a base station needs to connect.

    Attributes:
        server_public: the cloud's public key.
        public: the base station's public key.
        secret: the base station's secret key; left out of the repr.

    Raises:
        LocalError: one of them is not a valid key.
    """

    server_public: bytes
    public: bytes
    secret: bytes = field(repr=False)

    def __post_init__(self) -> None:
        for key in (self.server_public, self.public, self.secret):
            _check(key)


@dataclass(frozen=True, slots=True)
class CloudKeys:
    """What the cloud needs to listen.

    Attributes:
        public: its public key.
        secret: its secret key; left out of the repr.
        allowed: base station by public key; any other key is refused.

    Raises:
        LocalError: a key, or the number of a base station, is not valid.
    """

    public: bytes
    secret: bytes = field(repr=False)
    allowed: Mapping[bytes, int]

    def __post_init__(self) -> None:
        for key in (self.public, self.secret, *self.allowed):
            _check(key)
        for bs in self.allowed.values():
            if not 0 <= bs <= 0xFFFF:
                raise LocalError(f"a base station's number is in 0 ... 65535, not {bs}")


@dataclass(frozen=True, slots=True)
class KeyRing:
    """The keys of a whole network."""

    cloud: CloudKeys
    edges: Mapping[int, EdgeKeys]


def load_cloud_keys(folder: Path) -> CloudKeys:
    """Read what the cloud needs: cloud.key and allowed.toml.

    Raises:
        LocalError: a file is missing or damaged.
    """
    public, secret = _read_pair(folder / "cloud.key")
    path = folder / "allowed.toml"
    allowed: dict[bytes, int] = {}
    for name, key in _read_toml(path).items():
        bs = bs_of(name.encode())
        if bs is None:
            raise LocalError(f"{path} names {name!r}, which is not a base station")
        if not isinstance(key, str) or key.encode() in allowed:
            raise LocalError(f"{path} has no key of its own for {name}")
        allowed[key.encode()] = bs
    return CloudKeys(public, secret, allowed)


def load_edge_keys(folder: Path, bs: int) -> EdgeKeys:
    """Read what base station `bs` needs: cloud.pub and its own key file.

    Raises:
        LocalError: a file is missing or damaged.
    """
    server_public = _read(folder / "cloud.pub").strip().encode()
    return EdgeKeys(server_public, *_read_pair(edge_key_file(folder, bs)))


def edge_key_file(folder: Path, bs: int) -> Path:
    """Return the path of a base station's key pair."""
    return folder / f"{identity(bs).decode()}.key"


def admit(request: list[bytes], allowed: Mapping[bytes, int]) -> tuple[list[bytes], str | None]:
    """Decide on a ZeroMQ authentication request (ZAP, RFC 27): return the reply, and the peer's address if refused.

    A positive reply binds the connection to the base station whose key the peer has proven to hold.
    """
    version, number, _, address, _, mechanism, *credentials = request
    bs = allowed.get(_z85(credentials[0])) if mechanism == b"CURVE" and len(credentials) == 1 else None
    if bs is None:
        return [version, number, b"400", b"unknown key", b"", b""], address.decode()
    return [version, number, b"200", b"OK", b"%d" % bs, b""], None


def _z85(raw: bytes) -> bytes:
    """Encode a key of 32 B in Z85: each 4 B as five digits of base 85, the most significant first."""
    written = bytearray()
    for start in range(0, len(raw), 4):
        value = int.from_bytes(raw[start : start + 4], "big")
        written += bytes(Z85[value // 85**place % 85] for place in (4, 3, 2, 1, 0))
    return bytes(written)


def _value(group: bytes) -> int:
    """Return the value of five digits of base 85."""
    value = 0
    for digit in group:
        value = 85 * value + Z85.index(digit)
    return value


def _check(key: bytes) -> None:
    # The error message does not quote the value, which may be a secret.
    groups = [key[start : start + 5] for start in range(0, KEY_CHARACTERS, 5)]
    if len(key) != KEY_CHARACTERS or not set(key) <= set(Z85) or any(_value(group) >> 32 for group in groups):
        raise LocalError(f"a key must have {KEY_CHARACTERS} characters of Z85")


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii")
    except OSError as error:
        raise LocalError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise LocalError(f"{path} is not a key file") from error


def _read_toml(path: Path) -> dict[str, object]:
    text = _read(path)
    try:
        return parse_toml(text)
    except LocalError as error:
        raise LocalError(f"{path} is damaged") from error  # without the detail, which may quote a secret


def _read_pair(path: Path) -> tuple[bytes, bytes]:
    table = _read_toml(path)
    public, secret = table.get("public"), table.get("secret")
    if not isinstance(public, str) or not isinstance(secret, str):
        raise LocalError(f"{path} lacks its public or its secret key")
    return public.encode(), secret.encode()

"""Hosts of TCP endpoints: names and addresses of either IP version, as literals that sockets and URLs take."""

from __future__ import annotations

import ipaddress
import socket

from fronthaul.errors import LocalError

IPV4_HEADER_BYTES, IPV6_HEADER_BYTES = 20, 40
"""Header of an IP packet without options or extensions (RFC 791, RFC 8200) [B]."""


def host_of(name: str) -> str:
    """Return the address of a host as in a URL: 10.0.0.5, or [fd00::5].

    Args:
        name: an address, with or without brackets, a name, or * for all IPv4 addresses of this machine. A name that has
            addresses of both versions stands for the first of IPv4.

    Raises:
        LocalError: there is no such host.
    """
    bare = name[1:-1] if name.startswith("[") and name.endswith("]") else name
    if bare == "*":
        return "0.0.0.0"
    try:
        found = socket.getaddrinfo(bare, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:  # UnicodeError: a label is empty or too long
        raise LocalError(f"there is no host {name!r}: {getattr(error, 'strerror', None) or error}") from error
    first = min(found, key=lambda each: each[0] != socket.AF_INET)
    return in_url(str(first[4][0]))


def in_url(address: str) -> str:
    """Return an address as in a URL, IPv6 in brackets."""
    return f"[{address}]" if ":" in address and not address.startswith("[") else address


def is_ipv6(address: str) -> bool:
    """Return whether the host of "tcp://HOST:PORT", or HOST, is an address of IPv6."""
    return address.partition("://")[2].startswith("[") or address.startswith("[")


def ip_header_bytes(address: str) -> int:
    """Return the size of the IP header on connections to an address [B]."""
    return IPV6_HEADER_BYTES if is_ipv6(address) else IPV4_HEADER_BYTES


def is_loopback(name: str) -> bool:
    """Return whether a host, with or without a scheme, is a loopback address, on which links may be unencrypted."""
    address = name.rpartition("://")[2].strip("[]")
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return address == "localhost"

"""Names of disks on the network, which may hold passwords."""

from __future__ import annotations

__all__ = ["has_secret", "without_secret"]

#: Protocols whose names may hold a user, a password and a query.
_WEB = ("http", "https", "ftp", "ftps")


def has_secret(protocol: str, name: str) -> bool:
    """Tell whether a user, and maybe a password, stands in the name of a network disk."""
    return protocol in _WEB and "@" in name


def without_secret(protocol: str, name: str) -> str:
    """Return the name of a network disk without what may be a password or a ticket in it."""
    return name.rpartition("@")[2].partition("?")[0] if protocol in _WEB else name

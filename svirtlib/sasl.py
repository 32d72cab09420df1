"""Configuration files of Cyrus SASL, as the library reads them (``sasl_config_init``)."""

from __future__ import annotations

import re

from svirtlib.errors import ConfigurationError
from svirtlib.hostconfig import SaslConfig

__all__ = ["parse_sasl"]

_LINE = re.compile(r"([A-Za-z0-9_-]+)[ \t]*:[ \t]*(.*)")


def parse_sasl(data: bytes, path: str, service: str) -> SaslConfig:
    """Return what a file like ``/etc/sasl2/qemu.conf`` says.

    Names are the same in either case, and the first of several lines with one name counts.

    Args:
        data: the file.
        path: where it is, for messages.
        service: whose it is.

    Raises:
        ConfigurationError: SASL refuses the file.
    """
    values: dict[str, str] = {}
    for number, raw in enumerate(data.decode("utf-8", "surrogateescape").split("\n"), 1):
        line = raw.strip(" \t\r\f\v")
        if not line or line.startswith("#"):
            continue
        match = _LINE.fullmatch(line)
        if match is None or "\0" in line:
            raise ConfigurationError(path, "no 'name: value'; SASL refuses the file", number)
        if not match[2]:
            raise ConfigurationError(
                path, f"{match[1]} has no value; SASL refuses the file", number
            )
        values.setdefault(match[1].lower(), match[2])
    mechanisms = values.get("mech_list")
    return SaslConfig(
        service=service,
        path=path,
        mechanisms=None if mechanisms is None else tuple(mechanisms.lower().split()),
        keytab=values.get("keytab"),
        sasldb=values.get("sasldb_path"),
    )

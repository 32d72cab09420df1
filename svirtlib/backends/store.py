"""Find and open the registry that the administrator means.

The first of these that names one counts: the argument, the environment variable
``SVIRT_LABEL_REGISTRY``, ``url`` in the section ``[registry]`` of the configuration file
(``/etc/svirt-label.conf``, and ``svirt-label.conf`` in the user's configuration directory
before it); else it is a file of this host, in ``/var/lib/svirt-label`` for root and in the
user's state directory (XDG Base Directory Specification) for others. The domain is found in
the same way: ``SVIRT_LABEL_DOMAIN``, ``domain``, else ``default``.
"""

from __future__ import annotations

import configparser
import os
import socket
from typing import Optional

from attr import frozen

from svirtlib.errors import BackendDataError, BackendUnavailableError, SelectionError
from svirtlib.registry import Registry

__all__ = ["Settings", "open_registry", "read_settings"]

SYSTEM_CONFIGURATION = "/etc/svirt-label.conf"
SYSTEM_DIRECTORY = "/var/lib/svirt-label"
FILE_NAME = "registry.db"


@frozen
class Settings:
    """Which registry to use.

    Attributes:
        url: a database URL, or the path of a file.
        domain: name of the set of hosts that share storage.
        within: interval of categories for static levels (``c512.c1023``), or None.
    """

    url: str
    domain: str = "default"
    within: Optional[str] = None


def read_settings(url: Optional[str] = None, domain: Optional[str] = None) -> Settings:
    """Return which registry to use, given what the caller already knows.

    Raises:
        BackendDataError: a configuration file is damaged.
    """
    configured: dict[str, str] = {}
    for path in (
        SYSTEM_CONFIGURATION,
        os.path.join(_home("CONFIG", ".config"), "svirt-label.conf"),
    ):
        # Passwords may stand in a URL, with signs that would be taken for interpolation.
        parser = configparser.ConfigParser(interpolation=None)
        try:
            with open(path, encoding="utf-8") as stream:
                parser.read_file(stream)
        except FileNotFoundError:
            continue
        except (OSError, ValueError, configparser.Error) as error:
            raise BackendDataError(f"{path}: cannot be read: {error}") from None
        if parser.has_section("registry"):
            configured.update(parser["registry"])
    environment = os.environ
    return Settings(
        url=url
        or environment.get("SVIRT_LABEL_REGISTRY")
        or configured.get("url")
        or os.path.join(_state_directory(), FILE_NAME),
        domain=domain
        or environment.get("SVIRT_LABEL_DOMAIN")
        or configured.get("domain")
        or "default",
        within=configured.get("within"),
    )


def open_registry(
    url: Optional[str] = None, *, domain: Optional[str] = None, host: Optional[str] = None
) -> Registry:
    """Open a registry; a file that does not exist is made.

    Args:
        url: ``postgresql://...``, ``sqlite:///path`` or a path; None for the configured one.
        domain: name of the set of hosts that share storage; None for the configured one.
        host: name of this host; None for what the kernel calls it.

    Raises:
        SelectionError: this is no URL of a registry, or no name of a domain.
        BackendError: the store cannot be opened.
    """
    settings = read_settings(url, domain)
    if not settings.domain.isprintable() or not 0 < len(settings.domain) <= 200:
        raise SelectionError("a domain's name is one to 200 printable characters")
    try:
        from svirtlib.backends._registry import SqlRegistry
    except ImportError as error:
        raise BackendUnavailableError(
            f"the registry needs SQLAlchemy, which cannot be loaded ({error}): install "
            f"python3-sqlalchemy, or svirtlib[registry]"
        ) from None
    return SqlRegistry(settings.url, settings.domain, host or socket.gethostname())


def _state_directory() -> str:
    if os.geteuid() == 0:
        return SYSTEM_DIRECTORY
    return os.path.join(_home("STATE", os.path.join(".local", "state")), "svirt-label")


def _home(kind: str, below: str) -> str:
    path = os.environ.get(f"XDG_{kind}_HOME", "")
    # The specification: paths that are not absolute count as not set.
    return path if os.path.isabs(path) else os.path.join(os.path.expanduser("~"), below)

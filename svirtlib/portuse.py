"""Which ports QEMU will listen on for guests, as which domain, and which of them it may not."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Callable, Optional

from svirtlib.context import Context
from svirtlib.devices import Devices, Graphics
from svirtlib.errors import InvalidContextError
from svirtlib.guests import Guest
from svirtlib.hostpractices import PortDenied, PortUse
from svirtlib.settings import Settings

__all__ = ["MIGRATION_PORTS", "denials", "port_uses"]

#: ``migration_port_min`` and ``_max``, ``remote_display_port_min`` of libvirt.
MIGRATION_PORTS = (49152, 49215)
_DISPLAY = 5900


def port_uses(
    guests: Sequence[Guest], conf: Settings, domains: Sequence[str]
) -> tuple[PortUse, ...]:
    """Return the ports of consoles and of incoming migration.

    Where libvirt chooses a console's port, it takes the lowest that is free.

    Args:
        guests: the guests, with their devices.
        conf: ``qemu.conf``.
        domains: types that libvirt starts guests as: with KVM, and without where that differs.
    """
    found: dict[tuple[str, int, int, str], list[str]] = {}
    chosen: dict[str, int] = {}
    for guest in guests:
        domain = _domain(guest, domains)
        if domain is None:
            continue
        low = conf.number("migration_port_min", MIGRATION_PORTS[0])
        high = conf.number("migration_port_max", MIGRATION_PORTS[1])
        found.setdefault((domain, low, high, "incoming migration"), [])
        for graphics in (guest.devices or Devices()).graphics:
            for port, what in _ports(graphics):
                if port > 0:
                    found.setdefault((domain, port, port, what), []).append(guest.name)
                else:
                    chosen[domain] = chosen.get(domain, 0) + 1
    for domain, count in chosen.items():
        low = conf.number("remote_display_port_min", _DISPLAY)
        found.setdefault((domain, low, low + count - 1, "consoles whose ports libvirt chooses"), [])
    return tuple(PortUse(*key, tuple(sorted(set(names)))) for key, names in found.items())


def _ports(graphics: Graphics) -> Iterator[tuple[int, str]]:
    if graphics.listen.type not in ("address", "network"):
        return
    name = graphics.type.upper()
    for port, what in (
        (-1 if graphics.autoport else graphics.port, f"the {name} console"),
        (graphics.tls_port, f"the {name} console with TLS"),
        (max(graphics.websocket, 0), f"the WebSocket of the {name} console"),
    ):
        if port:
            yield port, what


def _domain(guest: Guest, domains: Sequence[str]) -> Optional[str]:
    """Return the type that a guest runs as, None for one without a label."""
    if guest.seclabel is not None and guest.seclabel.label:
        try:
            return Context.parse(guest.seclabel.label).type
        except InvalidContextError:
            return None
    index = 1 if guest.virt_type == "qemu" and len(domains) > 1 else 0
    return domains[index] if domains else None


def denials(
    uses: Sequence[PortUse],
    ports: Sequence[tuple[int, int, str]],
    may_bind: Callable[[str, str], bool],
) -> tuple[PortDenied, ...]:
    """Return the uses that the policy does not allow, each with its first such port.

    Args:
        uses: what is to be bound.
        ports: first port, last port and type of each statement of the policy about TCP; the first
            that matches holds, and what matches none has the type ``port_t``.
        may_bind: tells whether a domain may bind ports of a type.
    """
    found = []
    for use in uses:
        for port in range(use.low, min(use.high, 65535) + 1):
            type = next((type for low, high, type in ports if low <= port <= high), "port_t")
            if not may_bind(use.domain, type):
                found.append(PortDenied(use, port, type))
                break
    return tuple(found)

"""The verbs of the registry: allocate, reserve, release, list --reserved, gc and sync."""

from __future__ import annotations

import argparse
import datetime as dt
import json
import re
import sys
from collections.abc import Sequence
from typing import Any, Callable, Optional

from svirtlib import Level
from svirtlib.cli.exitcodes import ExitCode
from svirtlib.errors import BackendUnavailableError, SelectionError
from svirtlib.formats.plain import printable
from svirtlib.guests import Inventory
from svirtlib.registry import (
    Observation,
    Registry,
    Reservation,
    Split,
    Wish,
    observed,
    propose_split,
)
from svirtlib.seclabel import SeclabelType

__all__ = [
    "add_allocate_options",
    "add_gc_options",
    "add_registry_options",
    "add_release_options",
    "add_reserve_options",
    "add_sync_options",
    "allocate",
    "collect",
    "list_reserved",
    "release",
    "reserve",
    "sync",
]

_Inventory = Callable[[argparse.Namespace], Inventory]
_Write = Callable[[argparse.Namespace, str], None]
_WriteRows = Callable[
    [argparse.Namespace, Sequence[str], Sequence[Sequence[str]], str],
    int,
]

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}


def add_registry_options(parser: argparse.ArgumentParser) -> None:
    """Add what tells the registry."""
    group = parser.add_argument_group("the registry")
    group.add_argument(
        "--registry",
        metavar="URL",
        help="postgresql://..., sqlite:////path or a path (default: SVIRT_LABEL_REGISTRY, the "
        "configuration file, a file of this host)",
    )
    group.add_argument(
        "--domain",
        metavar="NAME",
        help="the set of hosts that share storage, among which levels are unique (default: "
        "SVIRT_LABEL_DOMAIN, the configuration file, 'default')",
    )


def add_allocate_options(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``allocate``."""
    group = parser.add_argument_group("the levels")
    group.add_argument(
        "--count", metavar="N", type=int, default=1, help="how many levels (default: 1)"
    )
    group.add_argument(
        "--size", metavar="K", type=int, default=2, help="categories of each (default: 2)"
    )
    group.add_argument(
        "--within", metavar="c0.c511", type=_interval, help="take categories from here alone"
    )
    group.add_argument(
        "--plan",
        action="store_true",
        help="reserve nothing; propose how to part the categories between libvirt's dynamic "
        "levels and static ones",
    )
    group.add_argument(
        "--no-sync",
        action="store_true",
        help="do not look at what runs on this host first; trust the registry",
    )
    _holder_options(parser)
    add_registry_options(parser)


def add_reserve_options(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``reserve``."""
    parser.add_argument("level", metavar="LEVEL", help="for example s0:c1,c2")
    _holder_options(parser)
    add_registry_options(parser)


def add_release_options(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``release``."""
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("level", metavar="LEVEL", nargs="?", help="the level to give back")
    which.add_argument("--owner", metavar="UUID", help="give back the level of this owner")
    add_registry_options(parser)


def add_gc_options(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``gc``."""
    parser.add_argument(
        "--grace",
        metavar="DURATION",
        type=_duration,
        default=3600,
        help="keep what was reserved so short a time ago, its guest may yet be defined "
        "(default: 1h)",
    )
    _dry_run(parser)
    add_registry_options(parser)


def add_sync_options(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``sync``."""
    _dry_run(parser)
    add_registry_options(parser)


def _dry_run(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-n", "--dry-run", action="store_true", help="tell what would be done, and do nothing"
    )


def _holder_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("who gets it")
    group.add_argument(
        "--owner",
        metavar="UUID",
        type=_owner,
        help="the guest; it has one level in a domain, and asking again gives the same",
    )
    group.add_argument("--name", metavar="NAME", help="its name")
    group.add_argument("--purpose", metavar="TEXT", help="what for")
    group.add_argument(
        "--lease",
        metavar="DURATION",
        type=_duration,
        help="for so long: 90s, 30m, 12h, 7d, 2w (default: until it is released)",
    )


def _duration(text: str) -> int:
    match = re.fullmatch(r"([1-9]\d{0,8})([smhdw]?)", text, re.ASCII)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no duration; expected 90s, 30m, 12h, 7d")
    return int(match[1]) * _UNITS[match[2] or "s"]


def _interval(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"c(\d{1,4})\.c(\d{1,4})", text, re.ASCII)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no interval of categories like c0.c511")
    return int(match[1]), int(match[2])


def _owner(text: str) -> str:
    if not 0 < len(text) <= 200 or not text.isprintable():
        raise argparse.ArgumentTypeError("an owner is 1 to 200 printable characters")
    return text.lower()


def allocate(options: argparse.Namespace, inventory: _Inventory, write: _Write) -> int:
    """Reserve free levels and print them, or propose a split."""
    if options.plan:
        return _plan(options, inventory, write)
    from svirtlib.backends import store

    settings = store.read_settings(options.registry, options.domain)
    within = options.within
    if within is None and settings.within is not None:
        try:
            within = _interval(settings.within)
        except argparse.ArgumentTypeError as error:
            raise SelectionError(f"'within' of the configuration file: {error}") from None
    first, last = within or (0, 1023)
    wish = Wish(options.size, first, last)
    taken_in = None if options.no_sync else _seen(options, inventory)
    registry = _open(options, None if taken_in is None else taken_in[0])
    try:
        if taken_in is not None:
            _take_in(registry, taken_in, dry_run=False)
        reserved = registry.allocate(wish, options.count, **_holder(options))
    finally:
        registry.close()
    _write_levels(options, registry, reserved, write)
    return ExitCode.OK if taken_in is None else _incomplete(taken_in[0])


def reserve(options: argparse.Namespace, write: _Write) -> int:
    """Reserve one level that was chosen elsewhere."""
    level = Level.parse(options.level)
    registry = _open(options)
    try:
        reserved = registry.reserve(level, **_holder(options))
    finally:
        registry.close()
    _write_levels(options, registry, [reserved], write)
    return ExitCode.OK


def release(options: argparse.Namespace, write: _Write) -> int:
    """Give a level back."""
    level = None if options.level is None else Level.parse(options.level)
    owner = None if options.owner is None else options.owner.lower()
    registry = _open(options)
    try:
        released = registry.release(level=level, owner=owner)
    finally:
        registry.close()
    _write_levels(options, registry, [released], write)
    return ExitCode.OK


def list_reserved(options: argparse.Namespace, write: _Write, write_rows: _WriteRows) -> int:
    """List what is reserved."""
    registry = _open(options)
    try:
        reserved = registry.reservations()
    finally:
        registry.close()
    return _write_reservations(options, registry, reserved, write, write_rows)


def collect(
    options: argparse.Namespace, inventory: _Inventory, write: _Write, write_rows: _WriteRows
) -> int:
    """Drop reservations of guests that are gone, and leases that ended."""
    found = inventory(options)
    owners = {guest.uuid for guest in found.guests if guest.uuid is not None}
    registry = _open(options, found)
    try:
        # Where a guest could not be read, none is known to be gone.
        dropped = registry.collect(
            None if found.unreadable else owners, grace=options.grace, dry_run=options.dry_run
        )
    finally:
        registry.close()
    _write_reservations(options, registry, dropped, write, write_rows)
    return _incomplete(found)


def sync(options: argparse.Namespace, inventory: _Inventory, write: _Write) -> int:
    """Take note of what this host uses."""
    taken_in = _look(options, inventory)
    registry = _open(options, taken_in[0])
    try:
        contradictions = _take_in(registry, taken_in, dry_run=options.dry_run)
    finally:
        registry.close()
    found, observations = taken_in
    if options.format == "json":
        document = {
            "schema": "svirt-label/sync/1",
            "domain": registry.domain,
            "host": registry.host,
            "complete": not found.unreadable,
            "in_use": [
                {"level": str(entry.level), "what": entry.what, "owner": entry.owner}
                for entry in sorted(observations, key=lambda entry: entry.level.sort_key)
            ],
            "contradictions": contradictions,
        }
        write(options, json.dumps(document, indent=2) + "\n")
    else:
        would = "would be " if options.dry_run else ""
        levels = "1 level" if len(observations) == 1 else f"{len(observations)} levels"
        write(options, f"{levels} in use on {printable(registry.host)} {would}noted\n")
    status = _incomplete(found)
    return ExitCode.FINDINGS if contradictions else status


_Seen = tuple[Inventory, list[Observation]]


def _seen(options: argparse.Namespace, inventory: _Inventory) -> Optional[_Seen]:
    """Look at what is in use; None on a host without libvirt, unless it was named."""
    try:
        return _look(options, inventory)
    except BackendUnavailableError as error:
        if options.connect is not None or options.xml or options.snapshot:
            raise
        if not options.quiet:
            _say(f"note: what runs here was not looked at, as libvirt is not here: {error}")
        return None


def _look(options: argparse.Namespace, inventory: _Inventory) -> _Seen:
    from svirtlib.backends.host import read_process_labels

    found = inventory(options)
    # Of documents and of other machines, this one's processes tell nothing.
    live = found.processes_known and not options.xml and not options.snapshot
    return found, observed(found, read_process_labels() if live else ())


def _take_in(registry: Registry, seen: _Seen, *, dry_run: bool) -> list[str]:
    found, observations = seen
    contradictions = registry.observe(
        observations,
        complete=found.host_known and not found.unreadable,
        dry_run=dry_run,
    )
    for text in contradictions:
        _say(f"warning: {text}")
    return contradictions


def _incomplete(inventory: Inventory) -> int:
    for gap in dict.fromkeys(f"{entry.what}: {entry.reason}" for entry in inventory.unreadable):
        _say(f"not read: {gap}")
    return ExitCode.INCOMPLETE if inventory.unreadable else ExitCode.OK


def _say(text: str) -> None:
    sys.stderr.write(f"svirt-label: {printable(text)}\n")


def _open(options: argparse.Namespace, inventory: Optional[Inventory] = None) -> Registry:
    from svirtlib.backends.store import open_registry

    host = None if inventory is None else inventory.host.name
    return open_registry(options.registry, domain=options.domain, host=host)


def _holder(options: argparse.Namespace) -> dict[str, Any]:
    return {
        "owner": options.owner,
        "name": options.name,
        "purpose": options.purpose,
        "lease": options.lease,
    }


def _write_levels(
    options: argparse.Namespace,
    registry: Registry,
    reserved: Sequence[Reservation],
    write: _Write,
) -> None:
    levels = [str(reservation.level) for reservation in reserved]
    if options.format == "json":
        document = {
            "schema": "svirt-label/allocate/1",
            "domain": registry.domain,
            "levels": levels,
            "reservations": [_document(reservation) for reservation in reserved],
        }
        write(options, json.dumps(document, indent=2) + "\n")
    else:
        write(options, "".join(f"{level}\n" for level in levels))


def _write_reservations(
    options: argparse.Namespace,
    registry: Registry,
    reserved: Sequence[Reservation],
    write: _Write,
    write_rows: _WriteRows,
) -> int:
    if options.format == "json":
        document = {
            "schema": "svirt-label/reservations/1",
            "domain": registry.domain,
            "reservations": [_document(reservation) for reservation in reserved],
        }
        write(options, json.dumps(document, indent=2) + "\n")
        return ExitCode.OK
    rows = [
        (
            str(reservation.level),
            reservation.name or "-",
            reservation.owner or "-",
            reservation.purpose or "-",
            reservation.host,
            _time(reservation.created) or "-",
            _time(reservation.expires) or "-",
        )
        for reservation in reserved
    ]
    headings = ("level", "name", "owner", "purpose", "host", "since", "until")
    return write_rows(options, headings, rows, "reservations")


def _document(reservation: Reservation) -> dict[str, Optional[str]]:
    return {
        "level": str(reservation.level),
        "owner": reservation.owner,
        "name": reservation.name,
        "purpose": reservation.purpose,
        "host": reservation.host,
        "created": _time(reservation.created),
        "expires": _time(reservation.expires),
    }


def _time(seconds: Optional[int]) -> Optional[str]:
    if seconds is None:
        return None
    return dt.datetime.fromtimestamp(seconds, dt.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def _plan(options: argparse.Namespace, inventory: _Inventory, write: _Write) -> int:
    """Propose a split of the categories."""
    found = inventory(options)
    statics = [
        entry.level
        for guest in found.guests
        if guest.seclabel is not None and guest.seclabel.type is SeclabelType.STATIC
        for entry in observed(Inventory(guests=(guest,)))
    ]
    dynamic = sum(
        guest.seclabel is None
        or guest.seclabel.type in (SeclabelType.DYNAMIC, SeclabelType.DEFAULT)
        for guest in found.guests
    )
    split = propose_split(statics, dynamic_guests=dynamic)
    if options.format == "json":
        document = {
            "schema": "svirt-label/allocation-plan/1",
            "dynamic": {
                "within": _run_text(split.dynamic),
                "pairs": split.dynamic_pairs,
                "guests": dynamic,
                "daemon_range": split.daemon_range,
                "daemon_range_now": found.host.dynamic_range,
            },
            "static": {"within": _run_text(split.static), "pairs": split.static_pairs},
            "misplaced": [str(level) for level in split.misplaced],
            "drop_in": _drop_in(split),
        }
        write(options, json.dumps(document, indent=2) + "\n")
    else:
        write(options, _plan_text(split, dynamic, found.host.dynamic_range))
    return _incomplete(found)


def _run_text(interval: tuple[int, int]) -> str:
    return f"c{interval[0]}.c{interval[1]}"


def _drop_in(split: Split) -> str:
    return f"[Service]\nSELinuxContext=system_u:system_r:virtd_t:{split.daemon_range}\n"


def _plan_text(split: Split, dynamic: int, now: Optional[str]) -> str:
    drop_in = "".join(f"       {line}\n" for line in _drop_in(split).splitlines())
    static = _run_text(split.static)
    lines = [
        f"dynamic levels: {_run_text(split.dynamic)}, {split.dynamic_pairs:,} pairs for "
        f"{dynamic} guests that libvirt gives one now\n",
        f"static levels:  {static}, {split.static_pairs:,} pairs\n",
        "\n",
        f"1. libvirt draws from the range of its daemon (now: {printable(now or 'not known')}). "
        f"Put into\n   /etc/systemd/system/virtqemud.service.d/svirt-label.conf "
        f"(libvirtd.service.d where\n   that runs):\n\n",
        drop_in,
        "\n   with the user, role and type that 'ps -o label= -C virtqemud' shows; then run\n"
        "   systemctl daemon-reload, and restart the daemon. Guests keep their levels until they\n"
        "   start again. Try it on one host first: policies differ in whether a daemon may give\n"
        "   images categories that it does not have.\n",
        f"2. Take static levels from the other part: svirt-label allocate --within {static}, or\n"
        f"   'within = {static}' under [registry] in /etc/svirt-label.conf.\n",
    ]
    if split.misplaced:
        shown = ", ".join(str(level) for level in split.misplaced[:10])
        more = len(split.misplaced) - 10
        lines.append(
            f"3. Give these static levels up, for libvirt may draw one that is comparable:\n"
            f"   {shown}{f' and {more} more' if more > 0 else ''}\n"
        )
    return "".join(lines)

"""One VM, one user: the rules of the machine on which SPICE viewers run, as text.

SPICE cannot tell users apart by itself. On the client machine the kernel can: nftables matches
the user who owns a connection's socket, so that each user reaches the port of its own guest
alone; and sudo lets a user start the viewer, with one argument, under the viewers' group.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping, Sequence
from typing import Any, Optional, Union

from attr import frozen

from svirtlib.errors import ConfigurationError, SelectionError, quote

__all__ = [
    "FILES",
    "MAX_BYTES",
    "TABLE",
    "ConsoleUser",
    "allowed",
    "firewall",
    "parse_map",
    "port_range",
    "sudoers",
    "unit",
]

#: The table of nftables that holds the rules.
TABLE = "svirt_user"

#: Where the parts are installed, with their modes.
FILES = {
    "firewall": ("/etc/svirt-label/user-console.nft", 0o644),
    "unit": ("/etc/systemd/system/svirt-user-console.service", 0o644),
    "sudoers": ("/etc/sudoers.d/svirt-user-console", 0o440),
}

_HEADER = "# Written by svirt-label console-rules; it will be written anew."
_USER = re.compile(r"[a-z_][a-z0-9_-]{0,31}")
_HOST = re.compile(r"(?!-)[A-Za-z0-9-]{1,63}(?:\.(?!-)[A-Za-z0-9-]{1,63})*")
_GUEST = re.compile(r"[A-Za-z0-9_.+:@-]{1,200}")
#: Largest map that is read, in bytes.
MAX_BYTES = 4 * 1024 * 1024
_HIGHEST_UID = 2**32 - 2


@frozen
class ConsoleUser:
    """One line of a map: who may use the console of a guest.

    Attributes:
        guest: libvirt's name for it.
        user: the user's name on the client machine.
        uid: the user's number there.
        host: how the viewer is to call the host; what its certificate names.
        address: the host's address.
        port: of the console, with TLS.
        line: in the map, counted from 1.
    """

    guest: str
    user: str
    uid: int
    host: str
    address: Union[ipaddress.IPv4Address, ipaddress.IPv6Address]
    port: int
    line: int = 0


def parse_map(data: bytes, source: str, uids: Mapping[str, int]) -> tuple[ConsoleUser, ...]:
    """Return the lines of a map: ``GUEST USER ADDRESS PORT``, the address also ``NAME/ADDRESS``.

    Blank lines and what follows a ``#`` count for nothing.

    Args:
        data: the map.
        source: where it came from, for messages.
        uids: the numbers of the users of the client machine.

    Raises:
        ConfigurationError: a line is no such line, a user is unknown or root, or two guests have
            one port.
    """
    if len(data) > MAX_BYTES:
        raise ConfigurationError(source, f"larger than {MAX_BYTES} bytes; this is no map")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        raise ConfigurationError(source, "no text in UTF-8; this is no map") from None
    users = []
    ports: dict[tuple[str, int], ConsoleUser] = {}
    guests: dict[tuple[str, str], ConsoleUser] = {}
    for number, raw in enumerate(text.split("\n"), 1):
        words = raw.partition("#")[0].split()
        if not words:
            continue
        one = _line(words, source, number, uids)
        other = ports.setdefault((str(one.address), one.port), one)
        if other.guest != one.guest:
            raise ConfigurationError(
                source,
                f"{one.guest} has the address and port of {other.guest} (line {other.line})",
                number,
            )
        if guests.setdefault((one.guest, one.user), one) is not one:
            raise ConfigurationError(source, f"{one.user} has {one.guest} already", number)
        users.append(one)
    if not users:
        raise ConfigurationError(
            source, "it maps no guest to any user; lines are GUEST USER ADDRESS PORT"
        )
    return tuple(users)


def _line(words: Sequence[str], source: str, number: int, uids: Mapping[str, int]) -> ConsoleUser:
    def fail(reason: str) -> ConfigurationError:
        return ConfigurationError(source, reason, number)

    if len(words) != 4:
        raise fail(f"{len(words)} words; a line is GUEST USER ADDRESS PORT")
    guest, user, place, port_text = words
    if not _GUEST.fullmatch(guest):
        raise fail(f"{quote(guest)} is no guest's name that can be mapped")
    if not _USER.fullmatch(user):
        raise fail(f"{quote(user)} is no user's name")
    host, slash, address_text = place.rpartition("/")
    try:
        address = ipaddress.ip_address(address_text)
    except ValueError:
        raise fail(
            f"{quote(address_text)} is no IP address; a host's name goes before it: NAME/ADDRESS"
        ) from None
    if getattr(address, "scope_id", None) or address.is_unspecified:
        raise fail(f"{quote(address_text)} is no address that a viewer can connect to")
    if slash and not _HOST.fullmatch(host):
        raise fail(f"{quote(host)} is no host's name")
    if not re.fullmatch("[0-9]{1,5}", port_text) or not 0 < int(port_text) < 65536:
        raise fail(f"{quote(port_text)} is no port")
    uid = uids.get(user)
    if uid is None:
        raise fail(f"there is no user {user}; rules hold for numbers, so the user must exist")
    if uid == 0 or not 0 < uid <= _HIGHEST_UID:
        raise fail(f"{user} has the number {uid}; root can take any rule away")
    return ConsoleUser(guest, user, uid, host or str(address), address, int(port_text), number)


def port_range(
    users: Sequence[ConsoleUser], ports: Optional[tuple[int, int]] = None
) -> tuple[int, int]:
    """Return the ports that are kept from all but their users.

    Raises:
        SelectionError: a mapped port lies outside.
    """
    found = [one.port for one in users]
    if ports is None:
        return min(found), max(found)
    outside = [port for port in found if not ports[0] <= port <= ports[1]]
    if outside:
        raise SelectionError(
            f"the map has port {outside[0]}, outside of {ports[0]}-{ports[1]}: it would be open to "
            f"everybody"
        )
    return ports


def firewall(users: Sequence[ConsoleUser], ports: Optional[tuple[int, int]] = None) -> str:
    """Return the rules for nftables; loading them anew replaces them in one step.

    Args:
        users: the map.
        ports: the lowest and the highest port to keep from others; None for those of the map.

    Raises:
        SelectionError: a mapped port lies outside of *ports*.
    """
    low, high = port_range(users, ports)
    lines = [
        _HEADER,
        f"add table inet {TABLE}",
        f"delete table inet {TABLE}",
        f"table inet {TABLE} {{",
    ]
    matches = []
    for version, kind, name in ((4, "ipv4_addr", "ip"), (6, "ipv6_addr", "ip6")):
        own = [one for one in users if one.address.version == version]
        if not own:
            continue
        hosts = ", ".join(str(one) for one in sorted({one.address for one in own}))
        entries = sorted({(one.uid, str(one.address), one.port) for one in own})
        elements = ",\n".join(
            f"            {uid} . {address} . {port} : accept" for uid, address, port in entries
        )
        lines += [
            f"    set hosts{version} {{",
            f"        type {kind}",
            f"        elements = {{ {hosts} }}",
            "    }",
            f"    map users{version} {{",
            f"        type uid . {kind} . inet_service : verdict",
            "        elements = {",
            elements,
            "        }",
            "    }",
        ]
        matches.append((name, version))
    lines += [
        "    chain output {",
        "        type filter hook output priority filter; policy accept;",
        # So that a change does not cut sessions.
        "        ct state established,related accept",
    ]
    for name, version in matches:
        lines.append(f"        meta skuid . {name} daddr . tcp dport vmap @users{version}")
    for name, version in matches:
        lines.append(
            f"        {name} daddr @hosts{version} tcp dport {low}-{high} "
            f"counter reject with tcp reset"
        )
    return "\n".join([*lines, "    }", "}"]) + "\n"


def unit() -> str:
    """Return the systemd unit that loads the rules, at boot and after nftables.service.

    That service removes all tables when it stops, and when it reloads.
    """
    path = FILES["firewall"][0]
    return f"""\
{_HEADER}
[Unit]
Description=Keep SPICE consoles from other users than their own
Documentation=man:nft(8)
DefaultDependencies=no
Wants=network-pre.target
Before=network-pre.target shutdown.target
Conflicts=shutdown.target
After=nftables.service
PartOf=nftables.service
ReloadPropagatedFrom=nftables.service

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/usr/sbin/nft -f {path}
ExecReload=/usr/sbin/nft -f {path}
ExecStop=/usr/sbin/nft delete table inet {TABLE}

[Install]
WantedBy=sysinit.target nftables.service
"""


def sudoers(
    users: Sequence[ConsoleUser], *, group: str, viewer: str = "/usr/bin/remote-viewer"
) -> str:
    """Return lines for sudo: each user may start the viewer for its own guest, and no other way.

    Args:
        users: the map.
        group: the group that the viewer runs with, which alone may execute it.
        viewer: its absolute path.

    Raises:
        SelectionError: the group or the path cannot stand there.
    """
    if not _USER.fullmatch(group):
        raise SelectionError(f"{quote(group)} is no group's name")
    if not re.fullmatch(r"(?:/[A-Za-z0-9._+-]+)+", viewer):
        raise SelectionError(f"{quote(viewer)} is no absolute path of a viewer")
    names = sorted({one.user for one in users})
    lines = [_HEADER]
    lines += [
        f'Defaults:{name} env_keep += "DISPLAY WAYLAND_DISPLAY XAUTHORITY XDG_RUNTIME_DIR"'
        for name in names
    ]
    for one in sorted(users, key=lambda one: (one.user, one.guest)):
        host = f"[{one.host}]" if ":" in one.host else one.host
        url = f"spice://{host}?tls-port={one.port}"
        lines.append(f"{one.user} ALL=({one.user}:{group}) {viewer} -- {_escaped(url)}")
    return "\n".join(lines) + "\n"


def _escaped(text: str) -> str:
    """Return an argument with all that sudo would take for more than itself."""
    return re.sub(r"([\\:,=?*\[\]!# ])", r"\\\1", text)


def allowed(
    entries: Sequence[Mapping[str, Any]], uid: int, address: str, port: int
) -> Optional[bool]:
    """Tell whether rules let a user's process open a connection.

    Args:
        entries: what ``nft -j list ruleset`` has under ``nftables``.
        uid: the user's number.
        address: where the connection goes.
        port: the TCP port.

    Returns:
        Whether no chain at the output hook stops it; None where a rule cannot be judged.
    """
    return _Rules(entries).allowed(uid, address, port)


class _Rules:
    """Chains at the output hook, as far as a new connection of a user meets them."""

    def __init__(self, entries: Sequence[Mapping[str, Any]]) -> None:
        self._chains = [entry["chain"] for entry in entries if "chain" in entry]
        self._rules: dict[tuple[str, str, str], list[Any]] = {}
        self._sets: dict[tuple[str, str, str], Any] = {}
        for entry in entries:
            if "rule" in entry:
                rule = entry["rule"]
                key = (rule["family"], rule["table"], rule["chain"])
                self._rules.setdefault(key, []).append(rule["expr"])
            for kind in ("set", "map"):
                if kind in entry:
                    one = entry[kind]
                    self._sets[one["family"], one["table"], one["name"]] = one.get("elem", [])

    def allowed(self, uid: int, address: str, port: int) -> Optional[bool]:
        packet = {"uid": uid, "address": ipaddress.ip_address(address), "port": port}
        unknown = False
        for chain in self._chains:
            if chain.get("hook") != "output" or chain.get("type") != "filter":
                continue
            verdict = self._chain(chain, packet, 0)
            if verdict in ("drop", "reject"):
                return False
            if verdict is None:
                unknown = True
            elif verdict == "" and chain.get("policy") == "drop":
                return False
        return None if unknown else True

    def _chain(self, chain: Mapping[str, Any], packet: Any, depth: int) -> Optional[str]:
        """Return what a chain decides: a verdict, "" for none, None where that is not known."""
        if depth > 16:
            return None
        for expressions in self._rules.get((chain["family"], chain["table"], chain["name"]), []):
            verdict = self._rule(chain, expressions, packet, depth)
            if verdict != "":
                return verdict
        return ""

    def _rule(
        self, chain: Mapping[str, Any], expressions: Any, packet: Any, depth: int
    ) -> Optional[str]:
        for expression in expressions:
            ((kind, value),) = expression.items()
            if kind == "match":
                matched = self._match(chain, value, packet)
                if matched is None:
                    return None
                if not matched:
                    return ""
            elif kind in ("accept", "drop", "reject"):
                return str(kind)
            elif kind == "return":
                return ""
            elif kind == "vmap":
                verdict = self._vmap(chain, value, packet)
                if verdict != "":
                    return verdict
            elif kind in ("jump", "goto"):
                target = {**chain, "name": value["target"]}
                verdict = self._chain(target, packet, depth + 1)
                if verdict != "" or kind == "goto":
                    return verdict
            elif kind not in ("counter", "log", "limit", "comment", "xt"):
                return None
        return ""

    def _left(self, left: Any, packet: Any) -> Any:
        """Return what a packet has in the place of an expression; None where not known."""
        if not isinstance(left, dict) or len(left) != 1:
            return None
        ((kind, value),) = left.items()
        if kind == "meta":
            names = {"skuid": packet["uid"], "l4proto": "tcp"}
            if value.get("key") == "nfproto":
                return f"ipv{packet['address'].version}"
            return names.get(value.get("key"))
        if kind == "payload":
            field = (value.get("protocol"), value.get("field"))
            version = packet["address"].version
            if field == ("ip", "daddr"):
                return packet["address"] if version == 4 else False
            if field == ("ip6", "daddr"):
                return packet["address"] if version == 6 else False
            if field in (("tcp", "dport"), ("th", "dport")):
                return packet["port"]
            return False if value.get("protocol") == "udp" else None
        if kind == "ct" and value.get("key") == "state":
            return "new"
        return None

    def _match(self, chain: Mapping[str, Any], value: Any, packet: Any) -> Optional[bool]:
        left = self._left(value.get("left"), packet)
        if left is None:
            return None
        if left is False:
            return False
        found = self._holds(chain, value.get("right"), left)
        if found is None or value.get("op") not in ("==", "in", "!="):
            return None
        return bool(found != (value["op"] == "!="))

    def _holds(self, chain: Mapping[str, Any], right: Any, left: Any) -> Optional[bool]:
        """Tell whether a value is one, or among those, on the right of a match."""
        if isinstance(right, str) and right.startswith("@"):
            right = self._sets.get((chain["family"], chain["table"], right[1:]), [])
        if isinstance(right, list):
            found = [self._holds(chain, one, left) for one in right]
            return True if True in found else None if None in found else False
        if isinstance(right, dict) and len(right) == 1:
            ((kind, value),) = right.items()
            if kind == "set":
                return self._holds(chain, value, left)
            if kind == "range":
                low, high = (_value(one) for one in value)
                return bool(low <= _value(left) <= high)
            if kind == "prefix":
                network = ipaddress.ip_network(f"{value['addr']}/{value['len']}", strict=False)
                return bool(left in network)
            if kind == "elem":
                return self._holds(chain, value.get("val"), left)
            return None
        if isinstance(right, (str, int)):
            return bool(_value(right) == _value(left))
        return None

    def _vmap(self, chain: Mapping[str, Any], value: Any, packet: Any) -> Optional[str]:
        key = value.get("key")
        parts = key["concat"] if isinstance(key, dict) and "concat" in key else [key]
        own = [self._left(part, packet) for part in parts]
        if None in own:
            return None
        data = value.get("data")
        if isinstance(data, str) and data.startswith("@"):
            data = self._sets.get((chain["family"], chain["table"], data[1:]), [])
        elif isinstance(data, dict):
            data = data.get("set", [])
        for pair in data or []:
            match, verdict = pair
            wanted = match["concat"] if isinstance(match, dict) and "concat" in match else [match]
            holds = [
                part is not False and self._holds(chain, right, part)
                for right, part in zip(wanted, own)
            ]
            if all(holds):
                return str(next(iter(verdict)))
        return ""


def _value(text: Any) -> Any:
    """Return a number or an address that nft wrote as text, so that it compares."""
    if isinstance(text, str):
        if text.isdigit():
            return int(text)
        try:
            return ipaddress.ip_address(text)
        except ValueError:
            return text
    return text

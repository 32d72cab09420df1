"""Which TCP ports a firewall opens to everybody, by its rules as nft writes them in JSON.

A new connection from an address and over an interface that no rule names is followed through the
chains. What it cannot tell keeps both ends open, and such a port is undecided.
"""

from __future__ import annotations

import enum
import ipaddress
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Optional

from attr import frozen

from svirtlib.hostpractices import OpenPorts

__all__ = ["input_filtered", "open_ports"]

#: So many rules are looked at before all ports are undecided.
_MOST_STEPS = 200_000
_MOST_JUMPS = 16
_HOOKS = ("ingress", "prerouting", "input")
#: Statements that decide nothing.
_PASSING = frozenset({"counter", "log", "comment", "mangle", "set", "map", "notrack", "continue"})
#: Matches on a header that a TCP connection does not have.
_OTHER_HEADERS = frozenset(
    {"udp", "udplite", "icmp", "icmpv6", "igmp", "sctp", "dccp", "esp", "ah", "comp", "arp"}
)
_INTERFACES = frozenset({"iif", "iifname", "iifgroup", "iiftype", "iifkind", "ibrname", "ibridge"})
#: A source is everybody from half of the addresses on; of IPv6, of those that are in use.
_EVERYBODY = {4: 2**31, 6: 2**124}
#: What a chain decides; ``END``: nothing.
_ACCEPT, _DROP, _RETURN, _END = "accept", "drop", "return", "end"


class _Holds(enum.IntEnum):
    """Whether a rule is about the connection; the greater one holds for two of them."""

    YES = 0
    #: For those that come over certain interfaces.
    SOME = 1
    UNKNOWN = 2
    NO = 3


class _TooManyError(Exception):
    """More rules than anybody wants to wait for."""


@frozen
class _Packet:
    port: int
    version: int


def open_ports(entries: Sequence[Mapping[str, Any]], origin: str) -> OpenPorts:
    """Return the TCP ports that everybody reaches, whatever address or interface he comes from.

    A family of addresses (IPv4, IPv6) without a chain at the input hook is left out.

    Args:
        entries: what ``nft -j list ruleset`` has under ``nftables``.
        origin: where the rules are from.
    """
    judge = _Judge(entries)
    try:
        states = [(low, *judge.is_open(low)) for low in judge.steps_of_ports()]
    except _TooManyError:
        return OpenPorts(origin, (), ((1, 65535),), "there are too many rules to follow")
    opened: list[tuple[int, int]] = []
    undecided: list[tuple[int, int]] = []
    reasons: dict[str, None] = {}
    for (low, state, reason), following in zip(states, [*states[1:], (65536, False, "")]):
        if state is False:
            continue
        found = opened if state else undecided
        if found and found[-1][1] == low - 1:
            low = found.pop()[0]
        found.append((low, following[0] - 1))
        if reason:
            reasons[reason] = None
    return OpenPorts(origin, tuple(opened), tuple(undecided), "; ".join([*reasons][:3]))


def _numbers(value: Any) -> Iterator[int]:
    if isinstance(value, bool):
        return
    if isinstance(value, int):
        yield value
    elif isinstance(value, (list, tuple)):
        for one in value:
            yield from _numbers(one)
    elif isinstance(value, dict):
        for one in value.values():
            yield from _numbers(one)


class _Judge:
    """The chains that a connection to the host meets."""

    def __init__(self, entries: Sequence[Mapping[str, Any]]) -> None:
        self._steps = 0
        self._reasons: dict[str, None] = {}
        self._rules: dict[tuple[str, str, str], list[Any]] = {}
        self._sets: dict[tuple[str, str, str], Any] = {}
        self._chains = [
            entry["chain"]
            for entry in entries
            if "chain" in entry
            and entry["chain"].get("hook") in _HOOKS
            and entry["chain"].get("type", "filter") == "filter"
        ]
        for entry in entries:
            if "rule" in entry:
                rule = entry["rule"]
                key = (rule["family"], rule["table"], rule["chain"])
                self._rules.setdefault(key, []).append(rule.get("expr", []))
            for kind in ("set", "map"):
                if kind in entry:
                    one = entry[kind]
                    self._sets[one["family"], one["table"], one["name"]] = one.get("elem", [])

    def steps_of_ports(self) -> list[int]:
        """Return the ports from each of which on, up to the next, rules treat all alike."""
        found = {1}
        for number in _numbers([[*self._rules.values()], [*self._sets.values()]]):
            found.update(port for port in (number, number + 1) if 1 < port < 65536)
        return sorted(found)

    def is_open(self, port: int) -> tuple[Optional[bool], str]:
        """Tell whether everybody reaches a port; None, with the reason, where that is not known."""
        self._reasons.clear()
        states = [self._family(_Packet(port, version)) for version in (4, 6)]
        if True in states:
            return True, ""
        return (None, "; ".join(self._reasons)) if None in states else (False, "")

    def _family(self, packet: _Packet) -> Optional[bool]:
        families = ("inet", "netdev", "ip" if packet.version == 4 else "ip6")
        chains = [chain for chain in self._chains if chain.get("family") in families]
        if not any(chain["hook"] == "input" for chain in chains):
            return False
        verdicts = [self._base(chain, packet) for chain in chains]
        if {_DROP} in verdicts:
            return False
        return True if all(one == {_ACCEPT} for one in verdicts) else None

    def _base(self, chain: Mapping[str, Any], packet: _Packet) -> set[str]:
        found = self._chain(chain, packet, 0)
        if _END in found:
            found = (found - {_END}) | {str(chain.get("policy", _ACCEPT))}
        if chain["hook"] == "ingress" and _DROP in found:
            # It belongs to one interface.
            self._reasons["a chain at the ingress hook drops for one interface alone"] = None
            return {_ACCEPT, _DROP}
        return found

    def _chain(self, chain: Mapping[str, Any], packet: _Packet, depth: int) -> set[str]:
        """Return what a chain may decide."""
        if depth > _MOST_JUMPS:
            raise _TooManyError
        found: set[str] = set()
        for expressions in self._rules.get((chain["family"], chain["table"], chain["name"]), []):
            self._steps += 1
            if self._steps > _MOST_STEPS:
                raise _TooManyError
            decided, goes_on = self._rule(chain, expressions, packet, depth)
            found |= {_END if one == _RETURN else one for one in decided}
            if not goes_on:
                return found
        return found | {_END}

    def _rule(
        self, chain: Mapping[str, Any], expressions: Any, packet: _Packet, depth: int
    ) -> tuple[set[str], bool]:
        """Return what a rule may decide, and whether the next one is looked at."""
        holds = _Holds.YES
        opaque = False
        for expression in expressions:
            ((kind, value),) = expression.items()
            if kind == "match":
                one = self._condition(
                    chain, value.get("left"), str(value.get("op")), value.get("right"), packet
                )
                holds = max(holds, one)
            elif kind in ("limit", "ct count"):
                # The first connection is below every limit.
                over = isinstance(value, dict) and bool(value.get("inv"))
                holds = max(holds, _Holds.NO if over else _Holds.YES)
            elif kind == "vmap":
                decided, goes_on = self._vmap(chain, value, packet, holds, depth)
                return decided, goes_on
            elif kind in (_ACCEPT, _DROP, "reject", _RETURN, "jump", "goto"):
                return self._verdict(chain, kind, value, packet, holds, depth)
            elif kind not in _PASSING:
                opaque = True
                holds = max(holds, self._unknown(f"'{kind}'"))
            if holds is _Holds.NO:
                return set(), True
        # What is not known may have decided itself.
        return ({_ACCEPT, _DROP}, True) if opaque else (set(), True)

    def _verdict(
        self,
        chain: Mapping[str, Any],
        kind: str,
        value: Any,
        packet: _Packet,
        holds: _Holds,
        depth: int,
    ) -> tuple[set[str], bool]:
        goes_on = False
        if kind in ("jump", "goto"):
            target = {**chain, "name": value["target"]}
            found = self._chain(target, packet, depth + 1)
            if _END in found:
                found.remove(_END)
                goes_on = kind == "jump"
                if kind == "goto":
                    found.add(_RETURN)
        else:
            found = {_DROP if kind == "reject" else kind}
        if holds is _Holds.YES:
            return found, goes_on
        if holds is _Holds.SOME:
            if kind == _ACCEPT:
                # That is what is to be: an interface is named.
                return set(), True
            if found & {_ACCEPT, _DROP}:
                self._reasons["rules for some interfaces alone decide"] = None
        return found, True

    def _vmap(
        self,
        chain: Mapping[str, Any],
        value: Mapping[str, Any],
        packet: _Packet,
        holds: _Holds,
        depth: int,
    ) -> tuple[set[str], bool]:
        pairs = self._elements(chain, value.get("data"))
        if pairs is None:
            self._unknown("a map")
            return {_ACCEPT, _DROP}, True
        found: set[str] = set()
        for key, verdict in pairs:
            one = max(holds, self._condition(chain, value.get("key"), "==", key, packet))
            if one is _Holds.NO:
                continue
            ((kind, target),) = verdict.items()
            if kind == "continue":
                continue
            decided, goes_on = self._verdict(chain, kind, target, packet, one, depth)
            found |= decided
            if not goes_on:
                return found, False
        return found, True

    def _unknown(self, what: str) -> _Holds:
        by = " (as iptables writes it)" if what == "'xt'" else ""
        self._reasons[f"a rule has {what}{by}, which is not understood"] = None
        return _Holds.UNKNOWN

    def _elements(self, chain: Mapping[str, Any], right: Any) -> Optional[list[Any]]:
        """Return the values on the right of a match; None where its set is not known."""
        if isinstance(right, str) and right.startswith("@"):
            right = self._sets.get((chain["family"], chain["table"], right[1:]))
            if right is None:
                return None
        if isinstance(right, dict) and "set" in right:
            right = right["set"]
        values = right if isinstance(right, list) else [right]
        return [
            one["elem"].get("val") if isinstance(one, dict) and "elem" in one else one
            for one in values
        ]

    def _condition(
        self, chain: Mapping[str, Any], left: Any, op: str, right: Any, packet: _Packet
    ) -> _Holds:
        values = self._elements(chain, right)
        if values is None:
            return self._unknown("a set")
        if not isinstance(left, dict) or len(left) != 1:
            return self._unknown("a match")
        ((kind, value),) = left.items()
        if kind == "concat":
            found = self._concat(chain, value, values, packet)
        else:
            if kind == "payload" and _has_not(value, packet):
                return _Holds.NO
            found = self._single(kind, value, op, values, packet)
            if op in ("<", ">", "<=", ">="):
                return found
        if op == "!=":
            return {_Holds.YES: _Holds.NO, _Holds.NO: _Holds.YES}.get(found, found)
        return found if op in ("==", "in") else self._unknown(f"a match with '{op}'")

    def _concat(
        self, chain: Mapping[str, Any], parts: Sequence[Any], values: Sequence[Any], packet: _Packet
    ) -> _Holds:
        found = _Holds.NO
        for one in values:
            own = one.get("concat") if isinstance(one, dict) else None
            if own is None or len(own) != len(parts):
                return self._unknown("a set")
            holds = [
                self._condition(chain, part, "==", wanted, packet)
                for part, wanted in zip(parts, own)
            ]
            found = min(found, max(holds))
        return found

    def _single(
        self, kind: str, value: Any, op: str, values: Sequence[Any], packet: _Packet
    ) -> _Holds:
        """Tell whether a value is among others; ``op`` counts where it is an order."""
        if kind == "meta":
            return self._meta(value.get("key"), values, packet)
        if kind == "payload":
            return self._payload(value, op, values, packet)
        if kind == "ct":
            key = value.get("key")
            if key == "state":
                return _is("new" in values)
            if key == "direction":
                return _is("original" in values)
            if key == "status" and all(isinstance(one, str) for one in values):
                # Neither seen before, nor sent here from another address.
                return _Holds.NO
        if kind == "fib":
            flags = value.get("flags", [])
            if value.get("result") == "type" and flags == ["daddr"]:
                return _is("local" in values)
            if value.get("result") == "oif" and "saddr" in flags:
                # There is a way back to it.
                return _is(False not in values)
        if kind == "&" and _is_flags(value[0]):
            # The first packet has SYN alone.
            masked = {"syn"} & _words(value[1])
            return _is(masked == {one for one in _words(list(values)) if one != "0"})
        return self._unknown(f"a match on '{kind}'")

    def _meta(self, key: Any, values: Sequence[Any], packet: _Packet) -> _Holds:
        if key in _INTERFACES:
            return _Holds.NO if all(one == "lo" for one in values) else _Holds.SOME
        own = {
            "l4proto": ("tcp", 6),
            "nfproto": (f"ipv{packet.version}",),
            "protocol": ("ip" if packet.version == 4 else "ip6",),
            "pkttype": ("host", "unicast"),
        }.get(key)
        if own is None:
            return self._unknown(f"a match on 'meta {key}'")
        return _is(any(one in values for one in own))

    def _payload(
        self, value: Mapping[str, Any], op: str, values: Sequence[Any], packet: _Packet
    ) -> _Holds:
        header, field = value.get("protocol"), value.get("field")
        if field == "dport":
            known = [_has_port(one, op, packet.port) for one in values]
            return _is(True in known) if None not in known else self._unknown("a port by its name")
        if field == "flags" and header == "tcp":
            return _is("syn" in values)
        if field == "saddr":
            # Of all but a few, everybody is.
            return _is(_is_everybody(values, packet.version))
        if field in ("protocol", "nexthdr"):
            return _is("tcp" in values or 6 in values)
        if field == "daddr" and _is_everybody(values, packet.version):
            return _Holds.YES
        return self._unknown(f"a match on '{header} {field}'")


def _is(holds: bool) -> _Holds:
    return _Holds.YES if holds else _Holds.NO


def _has_not(value: Mapping[str, Any], packet: _Packet) -> bool:
    """Tell whether a TCP connection lacks the header that a match, even a negated one, needs."""
    return value.get("protocol") in _OTHER_HEADERS or value.get("protocol") == (
        "ip6" if packet.version == 4 else "ip"
    )


def _has_port(value: Any, op: str, port: int) -> Optional[bool]:
    if isinstance(value, dict) and "range" in value:
        low, high = value["range"]
        return low <= port <= high if isinstance(low, int) and isinstance(high, int) else None
    if not isinstance(value, int):
        return None
    if op in ("<", ">", "<=", ">="):
        return {"<": port < value, ">": port > value, "<=": port <= value, ">=": port >= value}[op]
    return port == value


def _is_everybody(values: Sequence[Any], version: int) -> bool:
    size = 0
    for one in values:
        try:
            if isinstance(one, dict) and "prefix" in one:
                prefix = one["prefix"]
                network = ipaddress.ip_network(f"{prefix['addr']}/{prefix['len']}", strict=False)
                size += network.num_addresses
            elif isinstance(one, dict) and "range" in one:
                low, high = (int(ipaddress.ip_address(end)) for end in one["range"])
                size += high - low + 1
            else:
                size += 1
        except ValueError:
            # No address of that family: of a network card, for example.
            continue
    return size >= _EVERYBODY[version]


def _is_flags(value: Any) -> bool:
    payload = value.get("payload") if isinstance(value, dict) else None
    return isinstance(payload, dict) and payload.get("field") == "flags"


def _words(value: Any) -> set[str]:
    """Return the words in nested expressions: names of flags."""
    if isinstance(value, str):
        return {value}
    if isinstance(value, list):
        return {word for one in value for word in _words(one)}
    if isinstance(value, dict):
        return {word for one in value.values() for word in _words(one)}
    return set()


def input_filtered(entries: Sequence[dict[str, Any]]) -> bool:
    """Tell whether packets that come in are dropped unless a rule takes them."""
    chains = [entry["chain"] for entry in entries if "chain" in entry]
    rules = [entry["rule"] for entry in entries if "rule" in entry]
    for chain in chains:
        if chain.get("hook") != "input" or chain.get("type", "filter") != "filter":
            continue
        if chain.get("policy") == "drop":
            return True
        own = [
            rule
            for rule in rules
            if (rule.get("family"), rule.get("table"), rule.get("chain"))
            == (chain.get("family"), chain.get("table"), chain.get("name"))
        ]
        # A last rule without any condition that lets nothing through.
        last = own[-1].get("expr", []) if own else []
        verdicts = [next(iter(one)) for one in last if isinstance(one, dict) and one]
        plain = set(verdicts) <= {"counter", "log", "drop", "reject"}
        if verdicts and plain and verdicts[-1] in ("drop", "reject"):
            return True
    return False

"""What the pattern of one file-context rule can match, worked out before any path is asked.

A pattern is handed to Python's regular expressions only if they and PCRE agree on every
construct in it; for any other only libselinux can tell what it matches.
"""

from __future__ import annotations

import re
import string
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Optional, Union

from attr import frozen

from svirtlib.filerules import Rule, has_metacharacters

__all__ = ["Pattern", "stem_of"]

#: No path begins with it.
_IMPOSSIBLE = b"\0"

_NAMED_CLASSES = {
    b"alpha": string.ascii_letters,
    b"digit": string.digits,
    b"alnum": string.ascii_letters + string.digits,
    b"upper": string.ascii_uppercase,
    b"lower": string.ascii_lowercase,
    b"space": " \t\n\r\f\v",
    b"blank": " \t",
    b"punct": string.punctuation,
    b"xdigit": string.hexdigits,
    b"word": string.ascii_letters + string.digits + "_",
}
_ESCAPED_CLASSES = {b"d": b"digit", b"s": b"space", b"w": b"word"}
_COUNT = re.compile(rb"\{\d{1,4}(,\d{0,4})?\}")


class _ForeignError(Exception):
    """A pattern has a construct on which Python and PCRE may disagree."""


@frozen
class _Item:
    """One thing in a pattern with how often it may stand there.

    Attributes:
        text: itself, as Python has it.
        times: ``*``, ``+``, ... or nothing.
        literal: the byte that it stands for, where it is one.
        slash: whether it may stand for text with a slash in it.
    """

    text: bytes
    times: bytes = b""
    literal: Optional[bytes] = None
    slash: bool = True


class _Reader:
    """Reads the part of PCRE's language that Python reads in the same way."""

    def __init__(self, pattern: bytes) -> None:
        self._pattern = pattern
        self._place = 0

    def read(self) -> tuple[list[_Item], bool]:
        """Return the items of a pattern, and whether there are alternatives among them.

        Raises:
            _ForeignError: there is something in it that is not known to mean the same.
        """
        items, alternatives = self._sequence()
        if self._place < len(self._pattern) or not items:
            raise _ForeignError
        return items, alternatives

    def _peek(self, length: int = 1) -> bytes:
        return self._pattern[self._place : self._place + length]

    def _take(self) -> bytes:
        taken = self._peek()
        if not taken:
            raise _ForeignError
        self._place += 1
        return taken

    def _sequence(self) -> tuple[list[_Item], bool]:
        items: list[_Item] = []
        alternatives = False
        while self._peek() not in (b"", b")"):
            if self._peek() == b"|":
                self._take()
                items.append(_Item(b"|", slash=False))
                alternatives = True
            else:
                items.append(self._item())
        return items, alternatives

    def _item(self) -> _Item:
        byte = self._take()
        if byte == b"(":
            text, slash = self._group()
            return _Item(text, self._times(), slash=slash)
        if byte == b".":
            return _Item(b".", self._times())
        if byte == b"[":
            return self._of_class(self._class())
        if byte == b"\\":
            found = self._escape()
            if not isinstance(found, bytes):
                return self._of_class(found)
            byte = found
        elif byte in b"*+?{^$":
            # A brace may be a count or itself; ^ and $ stand for no character.
            raise _ForeignError
        return _Item(re.escape(byte), self._times(), byte, slash=byte == b"/")

    def _of_class(self, members: frozenset[int]) -> _Item:
        return _Item(_as_class(members), self._times(), slash=0x2F in members)

    def _times(self) -> bytes:
        times = b""
        if self._peek() and self._peek() in b"*+?":
            times = self._take()
        else:
            count = _COUNT.match(self._pattern, self._place)
            if count is not None:
                times = count[0]
                self._place = count.end()
        if times and self._peek() == b"?":
            times += self._take()
        if times and self._peek() and self._peek() in b"*+?{":
            raise _ForeignError
        return times

    def _group(self) -> tuple[bytes, bool]:
        if self._peek(2) == b"?:":
            self._place += 2
        elif self._peek() in (b"?", b"*"):
            raise _ForeignError
        items, _ = self._sequence()
        if self._take() != b")":
            raise _ForeignError
        return b"(?:%s)" % _joined(items), any(item.slash for item in items)

    def _escape(self) -> Union[bytes, frozenset[int]]:
        """Return the byte, or the class, that a backslash makes of what follows."""
        byte = self._take()
        if not byte.isalnum():
            return byte
        if byte == b"x":
            digits = self._peek(2)
            if len(digits) != 2 or not all(digit in string.hexdigits.encode() for digit in digits):
                raise _ForeignError
            self._place += 2
            return bytes([int(digits, 16)])
        name = _ESCAPED_CLASSES.get(byte.lower())
        if name is None:
            raise _ForeignError
        members = frozenset(_NAMED_CLASSES[name].encode())
        return members if byte.islower() else frozenset(range(256)) - members

    def _class(self) -> frozenset[int]:
        """Return the bytes that a class in brackets stands for."""
        negative = self._peek() == b"^"
        if negative:
            self._take()
        members: set[int] = set()
        first = True
        while first or self._peek() != b"]":
            first = False
            low = self._member()
            if self._peek() == b"-" and self._peek(2) not in (b"-]", b"-"):
                self._take()
                high = self._member()
                if not isinstance(low, int) or not isinstance(high, int) or high < low:
                    raise _ForeignError
                members.update(range(low, high + 1))
            else:
                members.update([low] if isinstance(low, int) else low)
        self._take()
        return frozenset(range(256)) - members if negative else frozenset(members)

    def _member(self) -> Union[int, frozenset[int]]:
        byte = self._take()
        if byte == b"[" and self._peek() and self._peek() in b":.=":
            end = self._pattern.find(b":]", self._place)
            name = self._pattern[self._place + 1 : end]
            if self._peek() != b":" or end < 0 or name not in _NAMED_CLASSES:
                raise _ForeignError
            self._place = end + 2
            return frozenset(_NAMED_CLASSES[name].encode())
        if byte == b"\\":
            found = self._escape()
            return found[0] if isinstance(found, bytes) else found
        return byte[0]


def _as_class(members: frozenset[int]) -> bytes:
    if not members:
        # Matches nothing.
        return b"(?!)"
    return b"[%s]" % b"".join(b"\\x%02x" % byte for byte in sorted(members))


_NOT_SLASH = _as_class(frozenset(range(256)) - {0x2F})
_OPTIONAL_REST = (_Item(b"(?:/.*)", b"?"), _Item(b"(?:/.+)", b"?"))

#: The start of a pattern in which each character stands for itself, once.
_START = re.compile(rb"(?:[^.^$?*+|\[({\\)]+|\\[^A-Za-z0-9])*")


class Pattern:
    """A rule with what its pattern says of the paths that it can match.

    What takes time is worked out when it is first asked: most rules never are.

    Attributes:
        rule: the rule.
        place: its place among all rules, the strongest first.
        start: what every path begins with that it matches.
    """

    __slots__ = (
        "_ends",
        "_folders",
        "_head",
        "_read",
        "_regex",
        "expression",
        "needle",
        "place",
        "rule",
        "start",
    )

    def __init__(self, rule: Rule, place: int) -> None:
        self.rule = rule
        self.place = place
        self._read = False
        self.start = _start(rule.pattern)
        if b"|" in rule.pattern and _may_be_at_top(rule.pattern):
            # What follows a | at the top need not begin like that.
            self.start = b""
        stem = stem_of(rule.pattern)
        if stem.startswith(self.start):
            self.start = stem
        elif not self.start.startswith(stem):
            self.start = _IMPOSSIBLE

    def read(self) -> Pattern:
        """Work out what the pattern means, if that is not done yet.

        Returns:
            itself, with these attributes set. ``expression``: the pattern for Python, anchored
            as libselinux does it; empty where only libselinux can tell what it matches.
            ``needle``: what is in the name of each file that it matches, unless it matches
            all that is in the file's folder.
        """
        if self._read:
            return self
        self._read = True
        self.expression = self.needle = self._ends = b""
        self._head: Union[bytes, re.Pattern[bytes]] = b""
        self._regex: Optional[re.Pattern[bytes]] = None
        self._folders: tuple[bytes, ...] = ()
        try:
            items, alternatives = _Reader(self.rule.pattern).read()
        except _ForeignError:
            return self
        # With alternatives, the first is bound to the start and the last to the end.
        self.expression = b"^%s$" % _joined(items)
        if alternatives:
            return self
        last = items[-1]
        if last in _OPTIONAL_REST:
            self._ends = b"."
            self._head = _joined(items[:-1]) + b"/"
            items = items[:-1]
        elif last.times in (b"*", b"+") and last.text in (b".", _NOT_SLASH):
            self._ends = b"." if last.text == b"." else b"/"
            items = items[:-1]
            self._head = _joined(items)
        self.needle = _needle(items)
        self._folders = tuple(_folders(items))
        return self

    def may_take(self, below: bytes) -> bool:
        """Tell whether it may match something right in a folder, given that not everything.

        Args:
            below: the folder with a slash at its end.
        """
        return all(text in below for text in self.read()._folders)

    def takes_all(self, below: bytes) -> bytes:
        """Tell whether it matches all that a folder holds.

        Args:
            below: the folder with a slash at its end.

        Returns:
            ``b"."`` where it matches whatever lies below, ``b"/"`` where it matches what lies
            right in the folder, nothing where that is not certain.
        """
        if len(self.start) > len(below) or not self.read()._ends:
            return b""
        if isinstance(self._head, bytes):
            rest = b".*" if self._ends == b"." else b""
            self._head = re.compile(self._head + rest, re.DOTALL)
        return self._ends if self._head.fullmatch(below) else b""

    def matches(self, path: bytes) -> bool:
        """Tell whether it matches a path that has no newline at its end."""
        if self._regex is None:
            self._regex = re.compile(self.expression, re.DOTALL)
        return self._regex.search(path) is not None


def _joined(items: Sequence[_Item]) -> bytes:
    return b"".join(item.text + item.times for item in items)


def _start(pattern: bytes) -> bytes:
    """Return what each path begins with that a pattern without a | at the top matches."""
    found = _START.match(pattern)
    start = found[0] if found else b""
    following = pattern[len(start) : len(start) + 1]
    if b"\\" in start:
        start = re.sub(rb"\\(.)", rb"\1", start)
    # The last character may stand there several times, or not at all.
    return start[:-1] if following and following in b"?*+{" else start


def stem_of(pattern: bytes) -> bytes:
    r"""Return the first part of a pattern, slash included, if it has no metacharacter.

    libselinux compares it with the first part of a path before it asks the expression, as it
    stands there: ``/a\-b/c`` is for no path, and of ``/a/b|/c`` the second half never counts.
    """
    stem = pattern[: pattern.find(b"/", 1) + 1]
    return stem if _is_plain(stem) else b""


@lru_cache(maxsize=1024)
def _is_plain(stem: bytes) -> bool:
    # A policy has some twenty.
    return not has_metacharacters(stem.replace(b"\\", b""))


def _may_be_at_top(pattern: bytes) -> bool:
    """Tell whether a | in a pattern may stand outside of all groups."""
    depth = 0
    for byte in pattern:
        if byte == ord("|") and not depth:
            return True
        if byte in b"\\[":
            # What follows may be no bracket of a group.
            depth = -len(pattern)
        depth += (byte == ord("(")) - (byte == ord(")"))
    return depth < 0


def _needle(items: Sequence[_Item]) -> bytes:
    """Return the longest text that the last part of each path has which the items match."""
    needle = run = b""
    for item in items:
        if item.slash:
            needle = run = b""
        elif item.literal is None or item.times:
            run = b""
        else:
            run += item.literal
            needle = max(needle, run, key=len)
    return needle


def _folders(items: Sequence[_Item]) -> Iterator[bytes]:
    """Yield texts that end in a slash and are in each path which the items match."""
    run = b""
    for item in items:
        if item.literal is not None and not item.times:
            run += item.literal
            continue
        if b"/" in run:
            yield run[: run.rindex(b"/") + 1]
        run = b""
    if b"/" in run:
        yield run[: run.rindex(b"/") + 1]

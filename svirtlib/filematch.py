"""Which rule wins for the files of a folder, without asking every rule about every file.

libselinux asks one rule after the other about each whole path. Here the rules are narrowed
once for each folder: those that cannot match anything in it fall away by the literal start of
their patterns, and all that are weaker than one that matches everything in it. In a folder of
images nothing is left to be asked, and the answer is the same for each of its files.

A pattern is handed to Python's regular expressions only if they and PCRE agree on every
construct in it. Where one does not (a lookahead, a property), and where libselinux has quirks of
its own (a newline at the end of a name), the answer is :data:`UNDECIDED`, and libselinux has to
be asked.
"""

from __future__ import annotations

import re
import string
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Optional, Union

from attr import frozen

from svirtlib.filerules import (
    Equivalence,
    Rule,
    has_metacharacters,
    literal_path,
    substitute,
)

__all__ = ["UNDECIDED", "FolderRules", "Matcher", "Undecided"]


class Undecided:
    """The type of :data:`UNDECIDED`."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "UNDECIDED"


#: libselinux has to be asked.
UNDECIDED = Undecided()

Answer = Union[Rule, None, Undecided]

#: No path begins with it.
_IMPOSSIBLE = b"\0"

#: As many folders are remembered; their children are often asked for next.
_REMEMBERED = 4096

_NOTHING: frozenset[bytes] = frozenset()

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


class _Pattern:
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
        stem = _stem(rule.pattern)
        if stem.startswith(self.start):
            self.start = stem
        elif not self.start.startswith(stem):
            self.start = _IMPOSSIBLE

    def read(self) -> _Pattern:
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


def _stem(pattern: bytes) -> bytes:
    r"""Return the first part of a pattern, slash included, if it has no metacharacter.

    libselinux compares it with the first part of a path before it asks the expression, as it
    stands there: ``/a\-b/c`` is for no path, and of ``/a/b|/c`` the second half never counts.
    """
    end = pattern.find(b"/", 1)
    if end < 0 or has_metacharacters(pattern[:end].replace(b"\\", b"")):
        return b""
    return pattern[: end + 1]


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


@lru_cache(maxsize=1024)
def _any_of(needles: tuple[bytes, ...]) -> re.Pattern[bytes]:
    return re.compile(b"|".join(map(re.escape, needles)))


class _Level:
    """A folder as the rules see it, with those that can match something below it.

    Attributes:
        below: the folder with a slash at its end.
        patterns: what can match below it, the strongest first; none that is weaker than one
            which matches everything below it.
    """

    __slots__ = ("_by_kind", "_inside", "below", "patterns")

    def __init__(self, below: bytes, candidates: Sequence[_Pattern]) -> None:
        self.below = below
        length = len(below)
        patterns = []
        for pattern in candidates:
            start = pattern.start
            if start.startswith(below) if len(start) > length else below.startswith(start):
                patterns.append(pattern)
                if not pattern.rule.kind and pattern.takes_all(below) == b".":
                    break
        self.patterns = patterns
        self._inside: Optional[list[tuple[_Pattern, bool]]] = None
        self._by_kind: dict[int, _Question] = {}

    def inside(self) -> list[tuple[_Pattern, bool]]:
        """Return what can match something right in the folder, and whether it matches all."""
        if self._inside is None:
            length = len(self.below)
            self._inside = []
            for pattern in self.patterns:
                if b"/" in pattern.start[length:]:
                    continue
                takes_all = bool(pattern.takes_all(self.below))
                if takes_all or pattern.may_take(self.below):
                    self._inside.append((pattern, takes_all))
                if takes_all and not pattern.rule.kind:
                    break
        return self._inside

    def question(self, kind: int) -> _Question:
        """Return what is to be asked about files of a kind right in the folder."""
        found = self._by_kind.get(kind)
        if found is None:
            found = self._by_kind[kind] = _Question(self, kind)
        return found


class _Question:
    """What is to be asked about the files of one kind in one folder.

    Attributes:
        patterns: those that may match some of them, the strongest first.
        otherwise: the answer for all that none of these matches.
    """

    __slots__ = ("_below", "_needles", "otherwise", "patterns")

    def __init__(self, level: _Level, kind: int) -> None:
        self._below = level.below
        self.patterns: list[_Pattern] = []
        self.otherwise: Optional[Rule] = None
        for pattern, takes_all in level.inside():
            if pattern.rule.kind and pattern.rule.kind != kind:
                continue
            if takes_all:
                self.otherwise = pattern.rule
                break
            self.patterns.append(pattern)
        # Where none of these is in a name, no pattern can match it.
        needles = tuple([pattern.needle for pattern in self.patterns])
        self._needles = _any_of(needles) if needles and all(needles) else None

    def ask(self, name: bytes) -> Answer:
        """Return the rule for a name, or UNDECIDED."""
        if self._needles is not None and self._needles.search(name) is None:
            return self.otherwise
        path = self._below + name
        for pattern in self.patterns:
            if pattern.needle not in name or not path.startswith(pattern.start):
                continue
            if not pattern.expression:
                return UNDECIDED
            if pattern.matches(path):
                return pattern.rule
        return self.otherwise


class FolderRules:
    """Which rule wins for what lies right in one folder."""

    __slots__ = ("_exact", "_level", "_special")

    def __init__(
        self,
        level: _Level,
        exact: Mapping[bytes, Sequence[tuple[int, Rule]]],
        special: frozenset[bytes],
    ) -> None:
        self._level = level
        self._exact = exact
        self._special = special

    def constant(self, kind: int) -> Answer:
        """Return the answer that all files of a kind get, or UNDECIDED if it depends on names.

        Args:
            kind: ``stat.S_IFMT`` of their mode.
        """
        question = self._level.question(kind)
        if question.patterns or self._exact or self._special:
            return UNDECIDED
        return question.otherwise

    def answer(self, name: bytes, kind: int) -> Answer:
        """Return the rule for a file, None where no rule is for it, or UNDECIDED.

        Args:
            name: its name in the folder.
            kind: ``stat.S_IFMT`` of its mode.
        """
        if name in self._special or name.endswith(b"\n"):
            return UNDECIDED
        question = self._level.question(kind)
        for place, rule in self._exact.get(name, ()):
            if not rule.kind or rule.kind == kind:
                # Nothing is stronger but what libselinux alone takes for one path.
                stronger = question.patterns and question.patterns[0].place < place
                return UNDECIDED if stronger else rule
        return question.ask(name) if question.patterns else question.otherwise


class Matcher:
    """Answers which rule wins.

    Args:
        rules: the strongest first.
        local: equivalences that are applied first.
        distributed: equivalences that are applied to what comes out.
    """

    def __init__(
        self,
        rules: Sequence[Rule],
        local: Sequence[Equivalence] = (),
        distributed: Sequence[Equivalence] = (),
    ) -> None:
        self._local = local
        self._distributed = distributed
        # Names whose equivalence is not that of the folder in which they lie.
        self._special = tuple(map(_sources, (local, distributed)))
        self._exact: dict[bytes, dict[bytes, list[tuple[int, Rule]]]] = {}
        patterns = []
        for place, rule in enumerate(rules):
            path = literal_path(rule.pattern)
            if path is not None and not path.startswith(_stem(rule.pattern)):
                continue
            if path is None:
                patterns.append(_Pattern(rule, place))
            else:
                folder, _, name = path.rpartition(b"/")
                names = self._exact.setdefault(folder + b"/", {})
                names.setdefault(name, []).append((place, rule))
        self._patterns = patterns
        self._levels: dict[bytes, _Level] = {}

    def folder(self, path: bytes) -> FolderRules:
        """Return the rules for what lies right in a folder.

        Args:
            path: the folder, absolute and clean, equivalences not yet applied.
        """
        below = path if path.endswith(b"/") else path + b"/"
        special = self._special[0].get(below, _NOTHING)
        resolved = path
        other = substitute(path, self._local)
        if other is not None:
            resolved = other
        special |= self._special[1].get(_slashed(resolved), _NOTHING)
        other = substitute(resolved, self._distributed)
        if other is not None:
            resolved = other
        level = self._level(_slashed(resolved))
        return FolderRules(level, self._exact.get(level.below, {}), special)

    def matching(self, path: bytes, kind: int) -> Iterator[Rule]:
        """Yield all rules whose patterns match a path, in no order but by their strength.

        Those that only libselinux understands are left out.

        Args:
            path: absolute and clean, equivalences not yet applied.
            kind: ``stat.S_IFMT`` of its mode.
        """
        for equivalences in (self._local, self._distributed):
            other = substitute(path, equivalences)
            path = path if other is None else other
        folder, _, name = path.rpartition(b"/")
        for _, rule in self._exact.get(folder + b"/", {}).get(name, ()):
            if rule.kind in (0, kind):
                yield rule
        for pattern in self._patterns:
            if not path.startswith(pattern.start) or pattern.rule.kind not in (0, kind):
                continue
            if pattern.read().expression and pattern.matches(path):
                yield pattern.rule

    def _level(self, below: bytes) -> _Level:
        level = self._levels.get(below)
        if level is None:
            above = below[:-1].rpartition(b"/")[0] + b"/"
            if len(below) > 1 and below.startswith(b"/"):
                candidates: Sequence[_Pattern] = self._level(above).patterns
            else:
                candidates = self._patterns
            level = _Level(below, candidates)
            if len(self._levels) >= _REMEMBERED:
                self._levels.clear()
            self._levels[below] = level
        return level


def _slashed(path: bytes) -> bytes:
    return path if path.endswith(b"/") else path + b"/"


def _sources(equivalences: Sequence[Equivalence]) -> dict[bytes, frozenset[bytes]]:
    """Return the names that equivalences are for, by the folders in which they lie."""
    found: dict[bytes, frozenset[bytes]] = {}
    for equivalence in equivalences:
        folder, _, name = equivalence.source.rpartition(b"/")
        found[folder + b"/"] = found.get(folder + b"/", _NOTHING) | {name}
    return found

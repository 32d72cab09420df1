"""Which rule wins for the files of a folder, without asking every rule about every file.

libselinux asks one rule after the other about each whole path. Here the rules are narrowed
once for each folder: those that cannot match anything in it fall away by the literal start of
their patterns, and all that are weaker than one that matches everything in it. In a folder of
images nothing is left to be asked, and the answer is the same for each of its files.

Where a pattern means something that only libselinux can tell (:mod:`svirtlib.filepattern`), and
where libselinux has quirks of its own (a newline at the end of a name), the answer is
:data:`UNDECIDED`, and libselinux has to be asked.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Optional, Union

from svirtlib.filepattern import Pattern, stem_of
from svirtlib.filerules import (
    Equivalence,
    Rule,
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

#: As many folders are remembered; their children are often asked for next.
_REMEMBERED = 4096

_NOTHING: frozenset[bytes] = frozenset()


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

    def __init__(self, below: bytes, candidates: Sequence[Pattern]) -> None:
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
        self._inside: Optional[list[tuple[Pattern, bool]]] = None
        self._by_kind: dict[int, _Question] = {}

    def inside(self) -> list[tuple[Pattern, bool]]:
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
        self.patterns: list[Pattern] = []
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
        # By their stem: most hold for one tree of the host, and most trees are never asked about.
        self._unread: dict[bytes, list[tuple[int, Rule]]] = {}
        for place, rule in enumerate(rules):
            self._unread.setdefault(stem_of(rule.pattern), []).append((place, rule))
        self._patterns: dict[bytes, list[Pattern]] = {}
        self._exact: dict[bytes, dict[bytes, list[tuple[int, Rule]]]] = {}
        self._everywhere = self._read(b"")
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
        return FolderRules(level, self._exact_in(level.below), special)

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
        for _, rule in self._exact_in(folder + b"/").get(name, ()):
            if rule.kind in (0, kind):
                yield rule
        for pattern in self._candidates(path):
            if not path.startswith(pattern.start) or pattern.rule.kind not in (0, kind):
                continue
            if pattern.read().expression and pattern.matches(path):
                yield pattern.rule

    def _candidates(self, path: bytes) -> list[Pattern]:
        """Return the patterns that have the path's stem or none; the strongest first."""
        stem = _stem(path)
        if not stem:
            return self._everywhere
        both = [*self._everywhere, *self._read(stem)]
        return sorted(both, key=lambda pattern: pattern.place)

    def _exact_in(self, folder: bytes) -> Mapping[bytes, list[tuple[int, Rule]]]:
        """Return the rules that are for one path each, right in a folder, by its name."""
        self._read(_stem(folder))
        return self._exact.get(folder, {})

    def _read(self, stem: bytes) -> list[Pattern]:
        """Read the rules that have a stem; return those that are patterns, the strongest first."""
        patterns = self._patterns.get(stem)
        if patterns is None:
            patterns = self._patterns[stem] = []
            for place, rule in self._unread.pop(stem, ()):
                path = literal_path(rule.pattern)
                if path is None:
                    patterns.append(Pattern(rule, place))
                elif path.startswith(stem):
                    folder, _, name = path.rpartition(b"/")
                    names = self._exact.setdefault(folder + b"/", {})
                    names.setdefault(name, []).append((place, rule))
        return patterns

    def _level(self, below: bytes) -> _Level:
        level = self._levels.get(below)
        if level is None:
            above = below[:-1].rpartition(b"/")[0] + b"/"
            # Below the top alone all that matter matter for the folder above too.
            if len(above) > 1:
                candidates: Sequence[Pattern] = self._level(above).patterns
            else:
                candidates = self._candidates(below)
            level = _Level(below, candidates)
            if len(self._levels) >= _REMEMBERED:
                self._levels.clear()
            self._levels[below] = level
        return level


def _slashed(path: bytes) -> bytes:
    return path if path.endswith(b"/") else path + b"/"


def _stem(path: bytes) -> bytes:
    """Return the first part of a path, slash included; of what lies in the root, nothing."""
    return path[: path.find(b"/", 1) + 1]


def _sources(equivalences: Sequence[Equivalence]) -> dict[bytes, frozenset[bytes]]:
    """Return the names that equivalences are for, by the folders in which they lie."""
    found: dict[bytes, frozenset[bytes]] = {}
    for equivalence in equivalences:
        folder, _, name = equivalence.source.rpartition(b"/")
        found[folder + b"/"] = found.get(folder + b"/", _NOTHING) | {name}
    return found

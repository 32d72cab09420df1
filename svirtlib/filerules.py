"""File-context rules as values, and the files that hold them as text; opens none.

What decides here is libselinux (``label_file.c`` of 3.4): which lines count, how compiled
files are laid out, in which order rules are asked. Paths and patterns are bytes, as names of
files are.
"""

from __future__ import annotations

import re
import stat
import struct
from collections.abc import Iterable, Sequence
from typing import Optional

from attr import frozen

from svirtlib.errors import BackendDataError, quote

__all__ = [
    "KINDS",
    "Equivalence",
    "Rule",
    "clean_path",
    "has_metacharacters",
    "in_order",
    "kind_letter",
    "literal_path",
    "parse_compiled",
    "parse_equivalences",
    "parse_rules",
    "substitute",
]

#: Kinds of files by the letters of ``semanage fcontext -f``; 0 stands for all.
KINDS = {
    "a": 0,
    "f": stat.S_IFREG,
    "d": stat.S_IFDIR,
    "c": stat.S_IFCHR,
    "b": stat.S_IFBLK,
    "s": stat.S_IFSOCK,
    "l": stat.S_IFLNK,
    "p": stat.S_IFIFO,
}

#: The same by the flags of ``file_contexts``.
_FLAGS = {b"--": stat.S_IFREG, **{b"-" + k.encode(): v for k, v in KINDS.items() if k not in "af"}}

#: What makes a pattern more than a path, unless a backslash stands before it.
_META = re.compile(rb"[.^$?*+|\[({]")
_NO_META = re.compile(rb"(?:[^\\.^$?*+|\[({]|\\.)*\\?", re.DOTALL)
_LITERAL = re.compile(rb"(?:[^\\]|\\[^0-9A-Za-z])*", re.DOTALL)

#: libselinux reads lines of ``file_contexts.subs`` into a buffer of this size.
_SUBS_LINE = 1023 - 1

_MAGIC = 0xF97CFF8A


@frozen
class Rule:
    """One line of ``file_contexts``.

    Attributes:
        pattern: what paths it is for, a regular expression for the whole path.
        kind: which kind of files (``stat.S_IFMT``), 0 for all.
        context: what they get, as written, or None for ``<<none>>``: leave them alone.
        source: the file it comes from.
        line: its line there, counted from 1, or 0 where the file does not tell.
    """

    pattern: bytes
    kind: int
    context: Optional[str]
    source: str
    line: int = 0

    @property
    def place(self) -> str:
        """Where it stands, for messages."""
        return f"{self.source}:{self.line}" if self.line else self.source

    @property
    def exact(self) -> bool:
        """Whether it is for one path alone, which makes it stronger than any pattern."""
        return not has_metacharacters(self.pattern)


@frozen
class Equivalence:
    """One line of ``file_contexts.subs``: paths below *source* get what *target* would get."""

    source: bytes
    target: bytes


def kind_letter(kind: int) -> str:
    """Return the letter of ``semanage fcontext -f`` for a kind of files; ``a`` for all."""
    return next((letter for letter, value in KINDS.items() if value == stat.S_IFMT(kind)), "a")


def has_metacharacters(pattern: bytes) -> bool:
    """Tell whether a pattern is a regular expression, and not one path.

    So says libselinux (``spec_hasMetaChars``): a backslash takes the meaning from the next
    character, whatever it is.
    """
    if b"\\" not in pattern:
        return _META.search(pattern) is not None
    return _NO_META.fullmatch(pattern) is None


def literal_path(pattern: bytes) -> Optional[bytes]:
    r"""Return the only path that a pattern is for, or None where it may be for others too.

    That is less than :func:`has_metacharacters` asks: in ``/a\d`` libselinux sees no
    metacharacter, and PCRE a class.
    """
    if has_metacharacters(pattern):
        return None
    if b"\\" not in pattern:
        return pattern
    if _LITERAL.fullmatch(pattern) is None:
        return None
    return re.sub(rb"\\(.)", rb"\1", pattern, flags=re.DOTALL)


def clean_path(path: bytes) -> bytes:
    """Return a path as libselinux looks it up: single slashes, none at the end."""
    while b"//" in path:
        path = path.replace(b"//", b"/")
    return path[:-1] if len(path) > 1 and path.endswith(b"/") else path


def substitute(path: bytes, equivalences: Sequence[Equivalence]) -> Optional[bytes]:
    """Return the path that stands for *path*, or None where no equivalence is for it.

    Of several the last one of the file counts, not the longest.
    """
    for equivalence in reversed(equivalences):
        source = equivalence.source
        if path.startswith(source) and path[len(source) : len(source) + 1] in (b"", b"/"):
            rest = path[len(source) :]
            if rest and equivalence.target == b"/":
                rest = rest[1:]
            return equivalence.target + rest
    return None


def parse_rules(data: bytes, source: str) -> list[Rule]:
    """Return the rules of a text file, in its order.

    Raises:
        BackendDataError: there is a line that makes libselinux refuse the whole file.
    """
    rules = []
    for number, line in enumerate(data.split(b"\n"), 1):
        fields = line.split(None, 3)[:3]
        if not fields or fields[0].startswith(b"#"):
            continue
        reason = ""
        if not all(field.isascii() for field in fields):
            reason = "holds bytes that are no ASCII; write them in the pattern as '.'"
        elif len(fields) < 2:
            reason = "has no context"
        elif len(fields) == 3 and fields[1] not in _FLAGS:
            reason = (
                f"has the file type {quote(fields[1].decode())}, not one of -- -d -c -b -s -l -p"
            )
        if reason:
            raise BackendDataError(
                f"{source}:{number}: {reason}; libselinux loads none of its rules, so no file "
                f"has a rule; mend the line, or take it away with 'semanage fcontext -d'"
            )
        context = fields[-1].decode()
        rules.append(
            Rule(
                pattern=fields[0],
                kind=_FLAGS[fields[1]] if len(fields) == 3 else 0,
                context=None if context == "<<none>>" else context,
                source=source,
                line=number,
            )
        )
    return rules


def parse_compiled(data: bytes, source: str) -> list[Rule]:
    """Return the rules of a file that ``sefcontext_compile`` wrote, versions 2 to 5.

    Raises:
        BackendDataError: it is none of these versions, or damaged.
    """
    try:
        return _compiled(data, source)
    except (struct.error, IndexError, ValueError):
        raise BackendDataError(
            f"{source}: damaged; write it anew with 'sefcontext_compile'"
        ) from None


def _compiled(data: bytes, source: str) -> list[Rule]:
    word = struct.Struct("=I").unpack_from
    magic, version = struct.unpack_from("=II", data)
    if magic != _MAGIC or not 2 <= version <= 5:
        raise BackendDataError(f"{source}: no compiled rules of version 2 to 5")
    place = 8
    # What compiled it: the version of PCRE, then the machine's architecture.
    for _ in range(2 if version == 5 else 1):
        place += 4 + word(data, place)[0]
    (stems,) = word(data, place)
    place += 4
    for _ in range(stems):
        place += 4 + word(data, place)[0] + 1
    (count,) = word(data, place)
    place += 4
    rules = []
    for _ in range(count):
        (length,) = word(data, place)
        context = data[place + 4 : place + 3 + length].decode()
        place += 4 + length
        (length,) = word(data, place)
        pattern = data[place + 4 : place + 3 + length]
        place += 4 + length
        (kind,) = word(data, place)
        # Mode, stem, whether it is a pattern; then how long its literal start is.
        place += 12 if version < 4 else 16
        (length,) = word(data, place)
        place += 4 + length
        if version < 5 and length == 0:
            raise ValueError
        rules.append(
            Rule(pattern, stat.S_IFMT(kind), None if context == "<<none>>" else context, source)
        )
    if place > len(data):
        raise ValueError
    return rules


def parse_equivalences(data: bytes) -> list[Equivalence]:
    """Return the lines of ``file_contexts.subs`` or ``.subs_dist``; bad ones do not count."""
    found = []
    for line in data.split(b"\n"):
        for part in (line[i : i + _SUBS_LINE] for i in range(0, len(line), _SUBS_LINE)):
            fields = part.split(None, 2)
            if len(fields) >= 2 and not fields[0].startswith(b"#"):
                found.append(Equivalence(fields[0], fields[1]))
    return found


def in_order(rules: Iterable[Rule]) -> list[Rule]:
    """Return rules with the strongest first.

    Args:
        rules: those of ``file_contexts``, then of ``.homedirs``, then of ``.local``.

    Rules for one path win over patterns; otherwise the later one wins.
    """
    ordered = list(rules)
    ordered.reverse()
    return sorted(ordered, key=lambda rule: not rule.exact)

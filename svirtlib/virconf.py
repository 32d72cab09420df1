"""libvirt's own configuration files, read as libvirt reads them (``virconf.c``).

The grammar is libvirt's, bugs included: of two assignments to a key the first counts, a
comment may follow a value, strings know no escapes, and a file of blank lines alone is an
error. Readers made for similar grammars lose the whole file over what libvirt accepts.
"""

from __future__ import annotations

import re
from typing import Optional, Union

from attr import field, frozen

from svirtlib.errors import ConfigurationError, quote

__all__ = ["Entry", "Value", "VirConf", "parse_conf"]

#: A value: a number, a text, or a list of such.
Value = Union[int, str, "tuple[Value, ...]"]

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
_BLANKS = re.compile(r"[ \t]*")
_BLANKS_AND_ENDS = re.compile(r"[ \t\r\n]*")
_NUMBER = re.compile(r"[-+]?[0-9]+")
_REST = re.compile(r"[^\r\n]*")

#: Lists inside lists are legal and mean nothing; so deep libvirt recurses, and so do we.
_DEEPEST = 50


@frozen
class Entry:
    """One assignment.

    Attributes:
        key: its name.
        value: what is assigned; kept out of ``repr``, as it may be a password.
        line: line of the assignment, counted from 1.
        negative: a number that is written with a minus, which libvirt counts as another type.
    """

    key: str
    value: Value = field(repr=False)
    line: int
    negative: bool = False


@frozen
class VirConf:
    """A whole file.

    Attributes:
        source: where it came from, for messages.
        entries: the assignments in the file's order.
    """

    source: str
    entries: tuple[Entry, ...] = ()

    def get(self, key: str) -> Optional[Entry]:
        """Return the assignment that counts for a key: the first one, as libvirt has it."""
        for entry in self.entries:
            if entry.key == key:
                return entry
        return None

    def repeated(self) -> tuple[Entry, ...]:
        """Return the assignments without effect, as an earlier one has the same key."""
        seen: set[str] = set()
        repeated = []
        for entry in self.entries:
            if entry.key in seen:
                repeated.append(entry)
            seen.add(entry.key)
        return tuple(repeated)


def parse_conf(data: bytes, source: str) -> VirConf:
    """Return what a file like ``qemu.conf`` assigns.

    Args:
        data: the file.
        source: where it came from, for messages.

    Raises:
        ConfigurationError: libvirt refuses the file; says the line and the reason.
    """
    # To libvirt the file is bytes that end at the first NUL.
    if b"\0" in data:
        line = data[: data.index(b"\0")].count(b"\n") + 1
        raise ConfigurationError(source, "a NUL byte: this is no configuration file", line)
    return VirConf(source, _Parser(data.decode("utf-8", "surrogateescape"), source).entries())


class _Parser:
    def __init__(self, text: str, source: str) -> None:
        self._text = text
        self._source = source
        self._at = 0
        self._counted = (0, 1)

    def entries(self) -> tuple[Entry, ...]:
        entries = []
        while self._at < len(self._text):
            entry = self._statement()
            if entry is not None:
                entries.append(entry)
            self._separator()
        return tuple(entries)

    def _line(self) -> int:
        """Return the line of the current place; places only grow."""
        start, line = self._counted
        self._counted = (self._at, line + self._text.count("\n", start, self._at))
        return self._counted[1]

    def _fail(self, reason: str) -> ConfigurationError:
        found = self._text[self._at : self._at + 1]
        what = f"found {quote(found)}" if found else "found the end of the file"
        return ConfigurationError(self._source, f"{reason}, {what}", self._line())

    def _current(self) -> str:
        return self._text[self._at : self._at + 1]

    def _skip(self, pattern: re.Pattern[str]) -> str:
        match = pattern.match(self._text, self._at)
        if match is None:
            return ""
        self._at = match.end()
        return match[0]

    def _statement(self) -> Optional[Entry]:
        self._skip(_BLANKS_AND_ENDS)
        if self._current() == "#":
            self._skip(_REST)
            return None
        name = self._skip(_NAME)
        if not name:
            raise self._fail("a name is expected")
        line = self._line()
        self._skip(_BLANKS)
        if self._current() != "=":
            raise self._fail(f"an assignment (=) is expected after {name}")
        self._at += 1
        self._skip(_BLANKS)
        negative = self._current() == "-"
        value = self._value(0)
        self._skip(_BLANKS)
        if self._current() == "#":
            self._skip(_REST)
        return Entry(name, value, line, negative)

    def _separator(self) -> None:
        self._skip(_BLANKS)
        if self._at >= len(self._text):
            return
        if self._current() == ";":
            self._at += 1
        elif self._current() not in ("\r", "\n"):
            raise self._fail("the end of the line is expected")
        self._skip(_BLANKS_AND_ENDS)

    def _value(self, depth: int) -> Value:
        self._skip(_BLANKS)
        current = self._current()
        if current in ("'", '"') and current:
            return self._string(current)
        if current == "[":
            if depth >= _DEEPEST:
                raise self._fail("lists are nested too deeply")
            return self._list(depth)
        number = self._skip(_NUMBER)
        if number:
            return int(number)
        raise self._fail("a value is expected")

    def _string(self, quote_mark: str) -> str:
        # libvirt wants more than the six quotation marks of an empty string behind the first.
        triple = quote_mark == '"' and self._text.startswith('"""', self._at)
        if triple and self._at + 6 < len(self._text):
            start = self._at + 3
            end = self._text.find('"""', start)
            if end < 0:
                raise self._fail("a string that begins here has no end")
            self._at = end + 3
            return self._text[start:end]
        start = self._at + 1
        end = self._text.find(quote_mark, start)
        line = _REST.match(self._text, start)
        if end < 0 or (line is not None and end > line.end()):
            raise self._fail("a string that begins here does not end on its line")
        self._at = end + 1
        return self._text[start:end]

    def _list(self, depth: int) -> tuple[Value, ...]:
        self._at += 1
        items: list[Value] = []
        self._skip(_BLANKS_AND_ENDS)
        while self._at < len(self._text) and self._current() != "]":
            if items:
                if self._current() != ",":
                    raise self._fail("a comma or the end of the list is expected")
                self._at += 1
                self._skip(_BLANKS_AND_ENDS)
                if self._current() == "]":
                    break
            items.append(self._value(depth + 1))
            self._skip(_BLANKS_AND_ENDS)
        if self._current() != "]":
            raise self._fail("a list that begins here has no end")
        self._at += 1
        return tuple(items)

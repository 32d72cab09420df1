"""Every exception that svirtlib raises on purpose.

::

    SvirtError
    ├─ LabelError (ValueError)          the caller's text is no label
    │  ├─ InvalidLevelError             a sensitivity with its categories
    │  ├─ InvalidRangeError             low and high level
    │  └─ InvalidContextError           user:role:type[:range]
    ├─ LabelSpaceError (ValueError)     two values of different policies were mixed,
    │                                   or a policy's names make no label space
    ├─ DomainXMLError (ValueError)      a document is not the domain XML that it should be
    ├─ SnapshotError (ValueError)       a document is not a snapshot written by ``export``
    ├─ SelectionError (ValueError)      a rule or a guest was named that does not exist
    └─ BackendError                     the system could not be asked
       ├─ BackendUnavailableError       it is not there: no daemon, no bindings, no file
       ├─ BackendPermissionError        it is there and refuses
       ├─ BackendTimeoutError           it is there and does not answer
       └─ BackendDataError              it answered with nonsense

A message says what is wrong, where, and what to do about it; it is lower case and ends
without a full stop, so that callers can put it into a sentence of their own.
"""

from __future__ import annotations

from typing import Optional

__all__ = [
    "BackendDataError",
    "BackendError",
    "BackendPermissionError",
    "BackendTimeoutError",
    "BackendUnavailableError",
    "DomainXMLError",
    "InvalidContextError",
    "InvalidLevelError",
    "InvalidRangeError",
    "LabelError",
    "LabelSpaceError",
    "SelectionError",
    "SnapshotError",
    "SvirtError",
    "quote",
]

_SHOWN = 120


def quote(text: str) -> str:
    """Return *text* quoted for a message: control characters escaped, cut when long.

    Label text, guest names and paths come from files that a hostile guest may have
    written; unescaped they could forge lines or move the cursor of a terminal.
    """
    if len(text) <= _SHOWN:
        return ascii(text)
    return f"{ascii(text[:_SHOWN])}... ({len(text)} characters)"


class SvirtError(Exception):
    """Root of all errors that svirtlib raises on purpose."""


class LabelError(SvirtError, ValueError):
    """Text that is no label.

    Attributes:
        text: the whole text that was to be parsed.
        reason: why it was refused, without the text.
        span: ``(start, end)`` character offsets of the offending part in *text*, if known.
    """

    kind = "label"

    def __init__(self, text: str, reason: str, span: Optional[tuple[int, int]] = None) -> None:
        self.text = text
        self.reason = reason
        self.span = span
        super().__init__(f"invalid {self.kind} {quote(text)}: {reason}")

    def __reduce__(self) -> tuple[object, ...]:
        # The default would call the constructor with the formatted message alone.
        return (type(self), (self.text, self.reason, self.span))


class InvalidLevelError(LabelError):
    """Text that is no level, such as ``s0:c5.c5``."""

    kind = "level"


class InvalidRangeError(LabelError):
    """Text that is no range, such as ``s0:c1-s0``."""

    kind = "range"


class InvalidContextError(LabelError):
    """Text that is no context, such as ``svirt_t:s0``."""

    kind = "context"


class LabelSpaceError(SvirtError, ValueError):
    """Levels of different policies were compared, or a policy's names clash."""


class DomainXMLError(SvirtError, ValueError):
    """A document that is not the libvirt XML which it should be.

    Attributes:
        source: where the document came from (a path, ``-`` or a guest's name).
        line: line of the fault, counted from 1, or None where it has none.
        reason: what is wrong with it.
    """

    def __init__(self, source: str, reason: str, line: Optional[int] = None) -> None:
        self.source = source
        self.reason = reason
        self.line = line
        where = source if line is None else f"{source}:{line}"
        super().__init__(f"{where}: {reason}")

    def __reduce__(self) -> tuple[object, ...]:
        return (type(self), (self.source, self.reason, self.line))


class SnapshotError(SvirtError, ValueError):
    """A document that is not a snapshot as ``svirt-label export`` writes it."""


class SelectionError(SvirtError, ValueError):
    """A rule or a guest was named that does not exist."""


class BackendError(SvirtError):
    """The system could not be asked; what it holds is unknown, not good."""


class BackendUnavailableError(BackendError):
    """What should answer is not there."""


class BackendPermissionError(BackendError):
    """What should answer refuses."""


class BackendTimeoutError(BackendError):
    """What should answer does not within the time limit."""


class BackendDataError(BackendError):
    """What answers says something that cannot be true."""

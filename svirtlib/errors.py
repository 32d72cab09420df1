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
    ├─ ConfigurationError (ValueError)  a configuration file is not what its reader takes
    ├─ SnapshotError (ValueError)       a document is not a snapshot written by ``export``
    ├─ SelectionError (ValueError)      a rule or a guest was named that does not exist
    ├─ PolicyError (ValueError)         a file is no policy, or the policy knows no such name
    ├─ AllocationError (ValueError)     labels were asked for that cannot be handed out
    │  └─ CategoriesExhaustedError      all are taken; says by how many
    ├─ StorageError (ValueError)        a path, rule or image was named that must not be labelled
    ├─ PartialChangeError               a change stopped part way; says how to take it back
    ├─ GenerationError (ValueError)     a seclabel was asked for that libvirt would refuse,
    │                                   or that would be unsafe
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
    "AllocationError",
    "BackendDataError",
    "BackendError",
    "BackendPermissionError",
    "BackendTimeoutError",
    "BackendUnavailableError",
    "CategoriesExhaustedError",
    "ConfigurationError",
    "DomainXMLError",
    "GenerationError",
    "InvalidContextError",
    "InvalidLevelError",
    "InvalidRangeError",
    "LabelError",
    "LabelSpaceError",
    "PartialChangeError",
    "PolicyError",
    "SelectionError",
    "SnapshotError",
    "StorageError",
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
    return f"{text[:_SHOWN]!a}... ({len(text)} characters)"


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


class ConfigurationError(SvirtError, ValueError):
    """A configuration file that its reader would refuse.

    Attributes:
        source: the file.
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


class PolicyError(SvirtError, ValueError):
    """A file is no policy that can be asked, or the policy does not know what it is asked about."""


class AllocationError(SvirtError, ValueError):
    """Labels were asked for that cannot be handed out, or released that are not held."""


class CategoriesExhaustedError(AllocationError):
    """No label is free any more, or fewer than were asked for.

    Attributes:
        wanted: how many labels were asked for.
        capacity: how many labels of that size the categories make.
        free: how many of them are free, or None where that is not known.
    """

    def __init__(self, wanted: int, capacity: int, free: Optional[int], reason: str = "") -> None:
        self.wanted = wanted
        self.capacity = capacity
        self.free = free
        self.reason = reason
        left = "none is free" if not free else f"only {free} are free"
        super().__init__(
            f"{wanted} of {capacity} labels wanted, and {left}{': ' + reason if reason else ''}; "
            f"release labels, or draw from other categories or another number of them"
        )

    def __reduce__(self) -> tuple[object, ...]:
        return (type(self), (self.wanted, self.capacity, self.free, self.reason))


class GenerationError(SvirtError, ValueError):
    """A seclabel was asked for that libvirt would refuse, or that would be unsafe.

    Attributes:
        what: what was asked for.
        why: why it is not given.
        remedy: what to do instead.
        unsafe: libvirt would take it, so that who knows better may have it.
    """

    def __init__(self, what: str, why: str, remedy: str, *, unsafe: bool = False) -> None:
        self.what = what
        self.why = why
        self.remedy = remedy
        self.unsafe = unsafe
        super().__init__(f"{what}: {why}; {remedy}")

    def __reduce__(self) -> tuple[object, ...]:
        return (_generation_error, (self.what, self.why, self.remedy, self.unsafe))


def _generation_error(what: str, why: str, remedy: str, unsafe: bool) -> GenerationError:
    return GenerationError(what, why, remedy, unsafe=unsafe)


class StorageError(SvirtError, ValueError):
    """A path, a rule or an image was named that cannot or must not be labelled."""


class PartialChangeError(SvirtError):
    """A change stopped part way.

    Attributes:
        done: what was changed until then.
        reason: what stopped it.
        undo: how to take back what was done, and how to go on.
    """

    def __init__(self, done: str, reason: str, undo: str) -> None:
        self.done = done
        self.reason = reason
        self.undo = undo
        super().__init__(f"stopped part way: {reason}; until then {done}; {undo}")

    def __reduce__(self) -> tuple[object, ...]:
        return (type(self), (self.done, self.reason, self.undo))


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

"""What is wrong with a seclabel, as values: which check objects, who, when, and what to do."""

from __future__ import annotations

import enum
from typing import Optional

from attr import frozen

from svirtlib.rawseclabel import RawSeclabel

__all__ = [
    "IGNORED",
    "INVALID",
    "NOT_CANONICAL",
    "REJECTED",
    "Layer",
    "Problem",
    "ignored",
    "refused",
]

#: The rules under which problems are reported.
REJECTED = "seclabel-rejected"
IGNORED = "seclabel-ignored"
INVALID = "label-invalid"
NOT_CANONICAL = "label-not-canonical"


class Layer(enum.Enum):
    """Who objects, and when."""

    #: libvirt, when it reads the XML.
    PARSE = "parse"
    #: libvirt, when the guest is defined or created.
    DEFINE = "define"
    #: libvirt, when the guest is started.
    START = "start"
    #: The kernel, when it is given the label.
    POLICY = "policy"
    #: Nobody: libvirt accepts it, but it does not do what it says.
    ADVICE = "advice"

    @property
    def of_libvirt(self) -> bool:
        """Whether libvirt refuses the document."""
        return self in (Layer.PARSE, Layer.DEFINE, Layer.START)


@frozen
class Problem:
    """One thing that is wrong with a seclabel.

    Attributes:
        code: which check objects; stable.
        rule: the rule under which it is reported.
        severity: ``high``, ``low`` or ``info``.
        layer: who objects, and when.
        element: the seclabel, in words.
        line: line in the document, counted from 1, or None where it is not known.
        reason: what is wrong, in one sentence without a full stop.
        remedy: what to write instead.
        error: libvirt's number of the error that it reports, or None.
        fragment: part of libvirt's message, by which to recognise it.
        label: the context concerned, or an empty text.
    """

    code: str
    rule: str
    severity: str
    layer: Layer
    element: str
    line: Optional[int]
    reason: str
    remedy: str
    error: Optional[int] = None
    fragment: str = ""
    label: str = ""

    @property
    def message(self) -> str:
        """The problem in one sentence, with libvirt's words where it is libvirt's."""
        text = f"{self.element}: {self.reason}"
        if self.error is None:
            return text
        verb = {Layer.PARSE: "read", Layer.DEFINE: "define", Layer.START: "start"}[self.layer]
        return f"{text}; libvirt refuses to {verb} it (error {self.error}, '{self.fragment}')"


def refused(
    code: str,
    raw: RawSeclabel,
    reason: str,
    remedy: str,
    error: int,
    fragment: str,
    *,
    layer: Layer = Layer.PARSE,
    line: Optional[int] = None,
    label: str = "",
) -> Problem:
    """Return the problem that libvirt refuses a seclabel, with its number and words for that."""
    line = raw.line if line is None else line
    return Problem(
        code, REJECTED, "high", layer, raw.path, line, reason, remedy, error, fragment, label
    )


def ignored(
    code: str,
    raw: RawSeclabel,
    reason: str,
    remedy: str,
    *,
    line: Optional[int] = None,
    severity: str = "low",
) -> Problem:
    """Return the problem that libvirt accepts something that then has no effect."""
    line = raw.line if line is None else line
    return Problem(code, IGNORED, severity, Layer.ADVICE, raw.path, line, reason, remedy)

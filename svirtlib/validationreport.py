"""Files and what is wrong with their seclabels, as a report.

Reads no file: the caller brings their content, or the reason why there is none.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Callable, Optional, Union

from attr import frozen

from svirtlib.errors import DomainXMLError
from svirtlib.findings import Finding, Report, Severity
from svirtlib.guests import Host, Unreadable
from svirtlib.problems import Problem
from svirtlib.seclabelxml import EXPECTED, read_seclabels
from svirtlib.validation import Target, validate

__all__ = ["File", "Validation", "validate_files"]

_ANY = Target()


@frozen
class File:
    """A file to validate.

    Attributes:
        name: its path, for messages.
        data: its content.
        asked_for: it was named by the user; another one lay in a folder that was, and may be
            of another kind.
    """

    name: str
    data: bytes
    asked_for: bool = True


@frozen
class Validation:
    """The outcome of :func:`validate_files`.

    Attributes:
        report: the findings; ``guests`` counts the documents.
        malformed: files that are no libvirt XML.
    """

    report: Report
    malformed: tuple[DomainXMLError, ...] = ()


def validate_files(
    files: Iterable[Union[File, Unreadable, DomainXMLError]],
    target: Target = _ANY,
    *,
    libvirt_only: bool = False,
    refusal: Optional[Callable[[str], str]] = None,
) -> Validation:
    """Validate the seclabels of files, in their order.

    Args:
        files: their contents; an Unreadable stands for one that could not be read, an error
            for one that does not exist.
        target: the libvirt whose verdict is wanted.
        libvirt_only: leave out what libvirt accepts.
        refusal: returns why a policy refuses a context; see :func:`svirtlib.validation.validate`.
    """
    findings: list[Finding] = []
    unreadable: list[Unreadable] = []
    malformed: list[DomainXMLError] = []
    notes: list[str] = []
    count = 0
    for file in files:
        if isinstance(file, Unreadable):
            unreadable.append(file)
            continue
        if isinstance(file, DomainXMLError):
            malformed.append(file)
            continue
        try:
            documents = read_seclabels(file.data, file.name)
        except DomainXMLError as error:
            malformed.append(error)
            continue
        if not documents:
            if file.asked_for:
                malformed.append(DomainXMLError(file.name, f"expected {EXPECTED}"))
            else:
                notes.append(f"{file.name}: passed over, no document with seclabels")
        count += len(documents)
        for document in documents:
            guests = () if document.name is None else (document.name,)
            findings.extend(
                _finding(problem, file.name, guests)
                for problem in validate(
                    document, target, libvirt_only=libvirt_only, refusal=refusal
                )
            )
    report = Report(
        host=Host(),
        guests=count,
        # By place, as a reader goes through them; no finding has more than one.
        findings=tuple(findings),
        unreadable=tuple(unreadable),
        notes=tuple(notes),
    )
    return Validation(report, tuple(malformed))


def _finding(problem: Problem, name: str, guests: tuple[str, ...]) -> Finding:
    return Finding(
        rule=problem.rule,
        severity=Severity.parse(problem.severity),
        guests=guests,
        message=problem.message,
        remedy=problem.remedy,
        labels=(problem.label,) if problem.label else (),
        file=name,
        line=problem.line,
        layer=problem.layer.value,
        code=problem.code,
    )

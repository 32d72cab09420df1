"""What libvirt and the grammar of labels say of seclabels, before libvirt is asked.

:func:`validate` repeats libvirt's own checks in libvirt's own order, so that its first
problem of the layers parse, define and start is the one that libvirt reports. Each rule names
the function of libvirt 9.0 that it follows; what other versions do differently hangs on
:attr:`Target.version`. A second group of problems is our own: what libvirt accepts and then
ignores (advice), and labels that the kernel cannot take (policy).

Pure: it reads neither XML nor the system.
"""

from __future__ import annotations

from collections.abc import Iterator
from difflib import get_close_matches
from typing import Callable, Optional

from svirtlib._seclabeladvice import advice, policy_problems
from svirtlib._seclabelreading import (
    NEWEST,
    UNSUPPORTED,
    Reading,
    ReadOverride,
    ReadSeclabel,
    Target,
)
from svirtlib.errors import quote
from svirtlib.problems import Layer, Problem, refused
from svirtlib.rawseclabel import SELINUX, DocumentKind, Place, RawSeclabel, SeclabelDocument

__all__ = ["NEWEST", "Target", "validate"]

#: libvirt's number of the error of a failed system call (``virErrorNumber``).
_SYSTEM_ERROR = 38

_USUAL = Target()


def validate(
    document: SeclabelDocument,
    target: Target = _USUAL,
    *,
    libvirt_only: bool = False,
    refusal: Optional[Callable[[str], str]] = None,
) -> tuple[Problem, ...]:
    """Return what is wrong with the seclabels of a document.

    Args:
        document: what :func:`svirtlib.seclabelxml.read_seclabels` returns.
        target: the libvirt whose verdict is wanted.
        libvirt_only: leave out what libvirt accepts.
        refusal: returns why a policy refuses a context, or an empty text; None where no policy
            is asked, and the grammar of contexts alone judges.

    Returns:
        First what libvirt refuses, in the order in which it finds it; then labels that the
        kernel cannot take; then what has no effect.
    """
    if not (document.seclabels or document.sources or document.unread):
        return ()
    reading = Reading(document, target)
    objections = (*reading.parse(), *_define(reading), *_start(reading))
    if libvirt_only:
        return objections
    told = {(problem.line, problem.label) for problem in objections}
    without_effect = sorted(advice(reading), key=lambda problem: (problem.line or 0, problem.code))
    return (*objections, *policy_problems(reading, told, refusal), *without_effect)


# --- What libvirt refuses to define ------------------------------------------------------------


def _define(reading: Reading) -> Iterator[Problem]:
    """Yield what libvirt's validation refuses (V1).

    Follows ``virSecurityDeviceLabelDefValidate``; status files and the domains inside of
    snapshots are not validated.
    """
    if reading.document.kind is not DocumentKind.DOMAIN:
        return
    kept = {
        seclabel.model
        for seclabel in reading.domain
        if seclabel.relabel is False and not seclabel.refused
    }
    for device in _in_order_of_validation(
        reading,
        Place.DISK,
        Place.BACKING,
        Place.SERIAL,
        Place.PARALLEL,
        Place.CHANNEL,
        Place.CONSOLE,
    ):
        if device.model in kept:
            which = "without a model" if device.model is None else f"for {device.model!r}"
            yield refused(
                "V1",
                device.raw,
                f"the domain's seclabel {which} turns relabelling off, so that no device can "
                "be an exception",
                "remove it, or set relabel='yes' in the domain's seclabel",
                UNSUPPORTED,
                "label overrides require relabeling to be enabled at the domain level",
                layer=Layer.DEFINE,
            )


def _in_order_of_validation(reading: Reading, *places: Place) -> Iterator[ReadOverride]:
    """Yield devices by places (``virDomainDeviceInfoIterateFlags``)."""
    disks = (Place.DISK, Place.BACKING)
    for place in places:
        if place is Place.BACKING:
            continue
        wanted = disks if place is Place.DISK and Place.BACKING in places else (place,)
        for device in reading.devices:
            if device.source.place in wanted and not device.source.replaced:
                yield device


# --- What libvirt refuses to start -------------------------------------------------------------


def _start(reading: Reading) -> Iterator[Problem]:
    """Yield what libvirt's security manager refuses (S1 to S5)."""
    if reading.target.driver == "test" or reading.document.kind not in (
        DocumentKind.DOMAIN,
        DocumentKind.SECLABEL,
    ):
        return
    yield from _missing_models(reading)
    for model in reading.target.models or (SELINUX, "dac"):
        seclabel = next((label for label in reading.domain if label.model == model), None)
        if seclabel is None or seclabel.refused:
            continue
        if seclabel.type == "none" and reading.target.require_confined:
            yield refused(
                "S2",
                seclabel.raw,
                "type 'none' starts the guest unconfined, and this host forbids that "
                "(security_require_confined)",
                "use type='dynamic'",
                UNSUPPORTED,
                "Unconfined guests are not allowed on this host",
                layer=Layer.START,
            )
        if model == SELINUX:
            yield from _selinux_start(seclabel)


def _missing_models(reading: Reading) -> Iterator[Problem]:
    """Follow ``virSecurityManagerCheckAllLabel``."""
    for seclabel in reading.domain:
        if not seclabel.refused and seclabel.model is not None:
            yield from _missing_model(reading, seclabel.raw, seclabel.model)
    for device in _in_order_of_validation(
        reading, Place.DISK, Place.SERIAL, Place.PARALLEL, Place.CHANNEL, Place.CONSOLE
    ):
        if not (device.refused or device.source.alias_of_serial):
            yield from _missing_model(reading, device.raw, device.model)


def _missing_model(reading: Reading, raw: RawSeclabel, model: Optional[str]) -> Iterator[Problem]:
    if model == "none" or (model is not None and reading.target.models is None):
        return
    models = reading.target.models or ()
    if model is not None and model in models:
        return
    if model is None:
        reason, remedy = "it names no model", "add model='selinux'"
    else:
        reason = (
            f"the host has no security model {quote(model)}; it has "
            f"{' and '.join(models) or 'none'}"
        )
        near = get_close_matches(model.lower(), models, 1)
        remedy = f"write model='{near[0]}'" if near else "remove it, or use a model of the host"
    yield refused(
        "S1",
        raw,
        reason,
        remedy,
        UNSUPPORTED,
        "is not available",
        layer=Layer.START,
    )


def _selinux_start(seclabel: ReadSeclabel) -> Iterator[Problem]:
    """Follow ``virSecuritySELinuxGenLabel``."""
    raw = seclabel.raw
    if seclabel.type == "static" and seclabel.label is not None:
        text = seclabel.label
        if not _splits(text):
            padded = text != text.strip() and _splits(text.strip())
            yield _unusable(
                "S3",
                raw,
                "label",
                text,
                "white space around the label belongs to it for libvirt"
                if padded
                else f"the label {quote(text)} is no user:role:type:range",
                "write <label> and its text on one line, without white space"
                if padded
                else "write a whole context, such as system_u:system_r:svirt_t:s0:c87,c520",
                "unable to allocate socket security context",
            )
        elif text.count(":") < 3 or not text.split(":", 3)[3]:
            yield _unusable(
                "S4",
                raw,
                "label",
                text,
                f"the label {quote(text)} has no range, by which guests are kept apart",
                "append a level with two categories, such as :s0:c87,c520",
                "unable to get selinux context range",
            )
    elif seclabel.type == "dynamic" and seclabel.baselabel is not None:
        text = seclabel.baselabel
        if not _splits(text):
            yield _unusable(
                "S5",
                raw,
                "baselabel",
                text,
                f"the baselabel {quote(text)} is no user:role:type",
                "write a context without categories, such as system_u:system_r:svirt_t:s0",
                "Unable to parse base SELinux context",
            )


def _unusable(
    code: str, raw: RawSeclabel, child: str, text: str, reason: str, remedy: str, message: str
) -> Problem:
    """Return the problem of a text from which libvirt makes no context when the guest starts."""
    return refused(
        code,
        raw,
        reason,
        remedy,
        _SYSTEM_ERROR,
        message,
        layer=Layer.START,
        line=raw.line_of(child),
        label=text,
    )


def _splits(text: str) -> bool:
    """Tell whether libselinux takes a text for a context (``context_new``).

    It looks for two colons and for white space, and at nothing else.
    """
    if any(character in text for character in "\n\t\r"):
        return False
    return text.count(":") >= 2 and " " not in ":".join(text.split(":", 3)[:3])

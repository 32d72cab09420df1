"""Labels that the kernel cannot take, and what libvirt accepts and does not do.

Both are told of a document that libvirt's parser has been through
(:mod:`svirtlib._seclabelreading`).
"""

from __future__ import annotations

from collections.abc import Iterator
from difflib import get_close_matches
from typing import Callable, Optional

from svirtlib._seclabelreading import (
    MAX_LABEL,
    MAX_MODEL,
    Reading,
    ReadOverride,
    ReadSeclabel,
    size,
)
from svirtlib.context import Context
from svirtlib.errors import InvalidContextError, quote
from svirtlib.problems import INVALID, NOT_CANONICAL, Layer, Problem, ignored
from svirtlib.rawseclabel import SELINUX, DocumentKind, Place, RawSeclabel

__all__ = ["advice", "policy_problems"]

_DOMAIN_ATTRIBUTES = ("type", "model", "relabel")
_DOMAIN_CHILDREN = ("label", "imagelabel", "baselabel")
_DEVICE_ATTRIBUTES = ("model", "relabel", "labelskip")
_DEVICE_CHILDREN = ("label",)

#: Character devices that have a file or socket for libvirt to label
#: (``virSecuritySELinuxSetChardevLabel``).
_LABELLED_CHARACTER = frozenset({"file", "dev", "pipe", "unix"})

# --- What the kernel refuses -------------------------------------------------------------------


def policy_problems(
    reading: Reading,
    told: set[tuple[Optional[int], str]],
    refusal: Optional[Callable[[str], str]],
) -> Iterator[Problem]:
    """Yield labels that are no contexts, or not in the kernel's spelling.

    Args:
        told: lines and labels about which there is a problem already.
        refusal: asks a policy; see :func:`svirtlib.validation.validate`.
    """
    for raw, name, text in _contexts(reading):
        if text is not None and (raw.line_of(name), text) not in told:
            yield from _judge_context(raw, name, text, refusal)


def _contexts(reading: Reading) -> Iterator[tuple[RawSeclabel, str, Optional[str]]]:
    """Yield the contexts that are given to the kernel, with the element that states each."""
    for seclabel in reading.domain:
        if seclabel.model not in (None, SELINUX) or seclabel.refused:
            continue
        raw = seclabel.raw
        if seclabel.type == "static" or (reading.document.live and seclabel.type != "none"):
            yield raw, "label", raw.text("label")
        if reading.document.live and seclabel.type != "none":
            yield raw, "imagelabel", raw.text("imagelabel")
        if seclabel.baselabel is not None:
            yield raw, "baselabel", seclabel.baselabel
    for device in reading.devices:
        if device.model == SELINUX and not device.refused:
            yield device.raw, "label", device.label


# --- What has no effect ------------------------------------------------------------------------


def advice(reading: Reading) -> Iterator[Problem]:
    """Yield what libvirt accepts and ignores, or takes for something else."""
    for seclabel in reading.domain:
        yield from _unknown_parts(seclabel.raw, _DOMAIN_ATTRIBUTES, _DOMAIN_CHILDREN)
        if not seclabel.refused and seclabel.type is not None:
            yield from _domain_advice(reading, seclabel)
    yield from _other_models_alone(reading)
    for device in reading.devices:
        yield from _unknown_parts(device.raw, _DEVICE_ATTRIBUTES, _DEVICE_CHILDREN)
        if not device.refused:
            yield from _device_advice(reading, device)
    for source in reading.document.sources:
        if not reading.reads(source) and not reading.document.live:
            for raw in source.seclabels:
                yield _unread(raw, f"this libvirt reads no seclabel of a {source.place.value}")
    for raw in reading.document.unread:
        yield _unread(raw, "libvirt reads no seclabel there")


def _domain_advice(reading: Reading, seclabel: ReadSeclabel) -> Iterator[Problem]:
    raw = seclabel.raw
    written = reading.attribute(raw, "type")
    model = raw.get("model")
    if model is not None and size(model) > MAX_MODEL:
        yield ignored(
            "I17",
            raw,
            f"a model of over {MAX_MODEL} bytes counts as absent",
            "write model='selinux'",
        )
    if seclabel.model == "none":
        if SELINUX in (reading.target.models or (SELINUX,)) and not reading.live:
            yield ignored(
                "I3",
                raw,
                "model 'none' is no security model, so this neither confines the guest nor "
                "lets it go: it gets the dynamic label of each model of the host",
                "remove the element; to run a guest unconfined, which is no good idea, write "
                "type='none' model='selinux'",
            )
        return
    if seclabel.type == "default" and seclabel.relabel is False:
        yield ignored(
            "I1",
            raw,
            "without a type, relabel='no' passes: the guest gets a new label at each start, "
            "and its images do not",
            "write type='dynamic' without relabel, or type='static' with a label",
        )
    yield from _lost_texts(reading, seclabel, written)
    if seclabel.model == SELINUX and seclabel.baselabel is not None:
        yield from _baselabel_parts(raw, seclabel.baselabel)


def _lost_texts(
    reading: Reading, seclabel: ReadSeclabel, written: Optional[str]
) -> Iterator[Problem]:
    """Yield texts of a domain's seclabel that libvirt does not keep."""
    raw = seclabel.raw
    kind = "a seclabel without a type" if written is None else f"type {written!r}"
    if raw.text("baselabel") is not None and seclabel.baselabel is None:
        if seclabel.type == "dynamic":
            reason = f"a baselabel of over {MAX_LABEL} bytes is dropped"
        else:
            reason = f"{kind} has no baselabel; libvirt drops it"
        yield ignored(
            "I2",
            raw,
            reason,
            "write type='dynamic' to have it honoured, else remove it",
            line=raw.line_of("baselabel"),
        )
    for name in ("label", "imagelabel"):
        if raw.text(name) is None or (name == "label" and seclabel.type == "static"):
            continue
        if seclabel.type == "none":
            code, reason = "I16", f"type 'none' has no {name}; libvirt drops it"
        elif not reading.document.live:
            code = "I5"
            reason = f"libvirt takes a <{name}> only from its own record of a running guest"
            if name == "label":
                reason += ", and draws one at each start"
        else:
            continue
        remedy = "remove it"
        if name == "label" and code == "I5":
            remedy += "; for a label of your own write type='static'"
        yield ignored(code, raw, reason, remedy, line=raw.line_of(name))


def _other_models_alone(reading: Reading) -> Iterator[Problem]:
    """Tell that a seclabel of another model leaves SELinux as it is."""
    if reading.target.driver == "test" or reading.document.kind is not DocumentKind.DOMAIN:
        return
    models = [seclabel.model for seclabel in reading.domain]
    if not models or reading.document.live or any(label.refused for label in reading.domain):
        return
    if {SELINUX, None, "none"} & set(models):
        return
    if SELINUX in (reading.target.models or (SELINUX,)):
        named = " and ".join(sorted({quote(model) for model in models if model}))
        yield ignored(
            "I4",
            reading.domain[0].raw,
            f"the seclabels are for {named} alone; SELinux still gives the guest a dynamic label",
            "nothing, if that is meant; else add a seclabel with model='selinux'",
            severity="info",
        )


def _device_advice(reading: Reading, device: ReadOverride) -> Iterator[Problem]:
    raw, source = device.raw, device.source
    label = raw.text("label")
    if label is not None and device.label is None:
        yield ignored(
            "I18",
            raw,
            f"a label of over {MAX_LABEL} bytes counts as absent",
            "write a context",
            line=raw.line_of("label"),
        )
    if reading.document.live:
        # What libvirt itself prints of a running guest.
        return
    if raw.get("labelskip") is not None and source.place not in (Place.SNAPSHOT, Place.BACKUP):
        yield ignored(
            "I11",
            raw,
            "libvirt takes labelskip only from its own record of a running guest",
            "remove it; to leave the image alone write relabel='no'",
        )
    elif device.label is None and device.relabel:
        yield ignored(
            "I10",
            raw,
            "without a label it overrides nothing, and libvirt drops it",
            "add <label>, or write relabel='no', or remove it",
        )
    if source.replaced:
        yield ignored(
            "I13",
            raw,
            "the first console stands for the first serial port, whose <source> counts",
            "move it to the <source> of the first serial port",
        )
    elif source.place.character and source.kind not in _LABELLED_CHARACTER:
        yield ignored(
            "I13",
            raw,
            f"libvirt labels nothing for a character device of type {quote(source.kind)}, and "
            "drops it",
            "remove it",
        )
    elif not source.place.character and source.kind == "network":
        yield ignored("I13", raw, "network storage carries no label; libvirt drops it", "remove it")
    elif source.place is Place.DISK and source.kind == "dir":
        yield ignored(
            "I13", raw, "libvirt does not label a directory that plays a disk", "remove it"
        )
    else:
        yield from _no_effect(reading, device)


def _no_effect(reading: Reading, device: ReadOverride) -> Iterator[Problem]:
    """Yield overrides for no model, where libvirt does not refuse to start for it."""
    raw, source = device.raw, device.source
    refused_at_start = reading.target.driver != "test" and (
        source.place is Place.DISK or (source.place.character and not source.alias_of_serial)
    )
    if device.model is None:
        if not refused_at_start:
            yield ignored(
                "I8", raw, "it names no model, so it overrides none", "add model='selinux'"
            )
    elif reading.target.models is not None and device.model not in reading.target.models:
        if not refused_at_start:
            yield ignored(
                "I9",
                raw,
                f"the host has no security model {quote(device.model)}",
                "remove it, or use a model of the host",
            )
    elif source.place in (Place.NVRAM, Place.MIRROR, Place.DATA) and any(
        seclabel.model == device.model and seclabel.relabel is False for seclabel in reading.domain
    ):
        yield ignored(
            "I20",
            raw,
            "the domain's seclabel turns relabelling off, here too",
            "remove it, or set relabel='yes' in the domain's seclabel",
        )


def _judge_context(
    raw: RawSeclabel, name: str, text: str, refusal: Optional[Callable[[str], str]]
) -> Iterator[Problem]:
    line = raw.line_of(name)
    try:
        context = Context.parse(text)
    except InvalidContextError as error:
        yield Problem(
            "L1",
            INVALID,
            "high",
            Layer.POLICY,
            raw.path,
            line,
            f"the {name} {quote(text)} is no context: {error.reason}",
            "write user:role:type:range, such as system_u:system_r:svirt_t:s0:c87,c520",
            label=text,
        )
        return
    asked = text
    if name == "baselabel":
        # Of a baselabel libvirt takes the type alone.
        asked = f"system_u:system_r:{context.type}:s0"
    reason = "" if refusal is None else refusal(asked)
    if context.range is None and name != "baselabel":
        yield Problem(
            "L2",
            INVALID,
            "high",
            Layer.POLICY,
            raw.path,
            line,
            f"the {name} {quote(text)} has no range; sVirt separates guests by it",
            "append a level, such as :s0:c87,c520",
            label=text,
        )
    elif reason:
        yield Problem(
            "L4",
            INVALID,
            "high",
            Layer.POLICY,
            raw.path,
            line,
            f"the {name} {quote(text)} is no context of this policy: {reason}",
            "write a context that the policy knows, or load the policy module that brings it: "
            "`semodule -i`",
            label=text,
        )
    elif str(context) != text and name != "baselabel":
        yield Problem(
            "L3",
            NOT_CANONICAL,
            "low",
            Layer.POLICY,
            raw.path,
            line,
            f"the {name} {quote(text)} is {context} to the kernel; libvirt compares texts and "
            "takes the two for different labels",
            f"write {context}",
            label=text,
        )


def _baselabel_parts(raw: RawSeclabel, text: str) -> Iterator[Problem]:
    """Tell that of a baselabel the type alone has an effect (``virSecuritySELinuxGenNewContext``).

    Silent where the other parts are the usual ones, which promise nothing.
    """
    try:
        context = Context.parse(text)
    except InvalidContextError:
        return
    lost = []
    if context.user != "system_u":
        lost.append(f"the user {context.user}")
    if context.role not in ("system_r", "object_r"):
        lost.append(f"the role {context.role}")
    if context.range is not None and str(context.range) != "s0":
        lost.append(f"the range {context.range}")
    if lost:
        yield ignored(
            "I7",
            raw,
            f"of a baselabel libvirt takes the type alone: {' and '.join(lost)} "
            f"{'is' if len(lost) == 1 else 'are'} replaced by the daemon's, with categories drawn "
            "at each start",
            f"write system_u:system_r:{context.type}:s0; for categories of your own use "
            "type='static'",
            line=raw.line_of("baselabel"),
        )


def _unknown_parts(
    raw: RawSeclabel, attributes: tuple[str, ...], children: tuple[str, ...]
) -> Iterator[Problem]:
    """Yield what libvirt's parser passes over, and its schema refuses."""
    for name, _ in raw.attributes:
        if name not in attributes:
            yield ignored(
                "I14",
                raw,
                f"libvirt knows no attribute {quote(name)} here",
                _instead(name, attributes),
            )
    seen: set[str] = set()
    for child in raw.children:
        if child.name not in children:
            yield ignored(
                "I14",
                raw,
                f"libvirt knows no element <{child.name}> here",
                _instead(child.name, children),
                line=child.line,
            )
        elif child.name in seen:
            yield ignored(
                "I15",
                raw,
                f"libvirt takes the first <{child.name}> alone",
                "keep one of them",
                line=child.line,
            )
        seen.add(child.name)


def _instead(name: str, known: tuple[str, ...]) -> str:
    near = get_close_matches(name.lower(), known, 1)
    return f"write {near[0]}, if that is meant" if near else "remove it"


def _unread(raw: RawSeclabel, reason: str) -> Problem:
    return ignored(
        "I12",
        raw,
        reason,
        "move it into the <source> of a disk or of a character device with a file, or remove it",
    )

"""What libvirt and the grammar of labels say of seclabels, before libvirt is asked.

:func:`validate` repeats libvirt's own checks in libvirt's own order, so that its first
problem of the layers parse, define and start is the one that libvirt reports. Each rule names
the function of libvirt 9.0 that it follows; what other versions do differently hangs on
:attr:`Target.version`. A second group of problems is our own: what libvirt accepts and then
ignores (advice), and labels that the kernel cannot take (policy).

Pure: it reads neither XML nor the system.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator
from difflib import get_close_matches
from typing import Callable, Optional

from attr import field, frozen, mutable

from svirtlib.context import Context
from svirtlib.errors import InvalidContextError, quote
from svirtlib.rawseclabel import (
    DocumentKind,
    Place,
    RawSeclabel,
    RawSource,
    SeclabelDocument,
)

__all__ = [
    "IGNORED",
    "INVALID",
    "NEWEST",
    "NOT_CANONICAL",
    "REJECTED",
    "Layer",
    "Problem",
    "Target",
    "validate",
]

#: The rules under which problems are reported.
REJECTED = "seclabel-rejected"
IGNORED = "seclabel-ignored"
INVALID = "label-invalid"
NOT_CANONICAL = "label-not-canonical"

#: The newest version of libvirt whose verdicts are known.
NEWEST = (12, 0)

#: From here on the parser reads ``type`` and ``relabel`` as it does in 9.0. Older ones took an
#: absent type for dynamic and an empty attribute for an absent one, in other words. The exact
#: release is not known; it lies before 9.0 and after 7.0.
_PRESENT_PARSER = (8, 0)
#: ``<nvram type=...><source>``.
_NVRAM_SOURCE = (8, 5)
#: ``<dataStore>``.
_DATA_STORE = (10, 10)
#: ``relabel='yes'`` of a device asks for a label. Dated by the change, not by a release.
_RELABEL_NEEDS_LABEL = (11, 5)

#: Longest texts, in bytes (libvirt VIR_SECURITY_LABEL_BUFLEN, VIR_SECURITY_MODEL_BUFLEN).
_MAX_LABEL = 4096
_MAX_MODEL = 256

_SELINUX = "selinux"

_TYPES = ("dynamic", "static", "none")
_DOMAIN_ATTRIBUTES = ("type", "model", "relabel")
_DOMAIN_CHILDREN = ("label", "imagelabel", "baselabel")
_DEVICE_ATTRIBUTES = ("model", "relabel", "labelskip")
_DEVICE_CHILDREN = ("label",)

#: Character devices that have a file or socket for libvirt to label
#: (``virSecuritySELinuxSetChardevLabel``).
_LABELLED_CHARACTER = frozenset({"file", "dev", "pipe", "unix"})

#: libvirt's numbers of errors (``virErrorNumber``).
_XML_ERROR = 27
_XML_DETAIL = 35
_SYSTEM_ERROR = 38
_UNSUPPORTED = 67


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


@frozen
class Target:
    """The libvirt whose verdict is wanted.

    Attributes:
        driver: ``qemu``, or ``test`` for libvirt's test driver, which knows no security model.
        models: the host's security models, first first; None where they are not known, and
            then SELinux comes first and no model is reported as missing.
        version: libvirt's version; None where it is not known, and then nothing is refused
            that only some versions refuse.
        require_confined: ``security_require_confined`` of its configuration.
    """

    driver: str = "qemu"
    models: Optional[tuple[str, ...]] = ("selinux", "dac")
    version: Optional[tuple[int, int]] = NEWEST
    require_confined: bool = False

    @property
    def default_model(self) -> Optional[str]:
        """The model that libvirt fills in (``virDomainDefParserConfig.defSecModel``)."""
        if self.driver == "test":
            return None
        return self.models[0] if self.models else _SELINUX

    def before(self, version: tuple[int, int]) -> bool:
        """Whether it is known to be older than a version."""
        return self.version is not None and self.version < version


def validate(
    document: SeclabelDocument,
    target: Target = Target(),
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
    judge = _Judge(document, target)
    refused = [*judge.parse(), *judge.define(), *judge.start()]
    if libvirt_only:
        return tuple(refused)
    told = {(problem.line, problem.label) for problem in refused}
    policy = list(judge.policy(told, refusal))
    advice = sorted(judge.advice(), key=lambda problem: (problem.line or 0, problem.code))
    return (*refused, *policy, *advice)


@mutable
class _Domain:
    """A domain's seclabel as libvirt understands it.

    Attributes:
        raw: as it is written.
        type: one of the types, ``default`` for an absent one, None for an invalid one.
        model: the model, filled in where libvirt fills it in.
        relabel: whether images are relabelled, or None for an invalid value.
        refused: libvirt refuses it while it reads it.
    """

    raw: RawSeclabel
    type: Optional[str] = None
    model: Optional[str] = None
    relabel: Optional[bool] = None
    label: Optional[str] = None
    baselabel: Optional[str] = None
    refused: bool = False


@mutable
class _Device:
    """A device's seclabel as libvirt understands it."""

    source: RawSource
    raw: RawSeclabel
    model: Optional[str] = None
    relabel: bool = True
    label: Optional[str] = None
    refused: bool = False


@mutable
class _Judge:
    """Applies the checks to one document; :meth:`parse` comes first and fills the values."""

    document: SeclabelDocument
    target: Target
    domain: list[_Domain] = field(factory=list)
    devices: list[_Device] = field(factory=list)

    @property
    def _old(self) -> bool:
        return self.target.before(_PRESENT_PARSER)

    @property
    def _live(self) -> bool:
        """Whether libvirt parses the document as that of a running guest.

        Only its own status files; it takes what users give it for inactive, whatever it shows.
        """
        return self.document.kind is DocumentKind.STATUS

    # What libvirt refuses to read.

    def parse(self) -> Iterator[Problem]:
        """Yield what libvirt's parser refuses (P1 to P11, D1 to D5)."""
        yield from self._parse_domain()
        for source in self.document.sources:
            if self._reads(source):
                yield from self._parse_source(source)

    def _parse_domain(self) -> Iterator[Problem]:
        """Follow ``virSecurityLabelDefsParseXML``."""
        for raw in self.document.seclabels:
            seclabel = _Domain(raw)
            for problem in self._parse_seclabel(seclabel):
                seclabel.refused = True
                yield problem
            if any(seclabel.model == other.model for other in self.domain):
                # Several without a model count as of one model.
                yield self._duplicate("P9", raw, seclabel.model, "the domain")
            self.domain.append(seclabel)
        if len(self.domain) == 1 and self.domain[0].model is None:
            yield from self._fill_in(self.domain[0])
        elif len(self.domain) > 1:
            # libvirt looks at them from the last to the first.
            for seclabel in reversed(self.domain):
                if seclabel.model is None:
                    yield _refused(
                        "P11",
                        seclabel.raw,
                        "it names no model, which it must where a domain has several seclabels",
                        "add model='selinux' (or the model that is meant)",
                        _XML_ERROR,
                        "missing security model when using multiple labels",
                    )

    def _parse_seclabel(self, seclabel: _Domain) -> Iterator[Problem]:
        """Follow ``virSecurityLabelDefParseXML``, which stops at the first fault."""
        raw = seclabel.raw
        seclabel.model = self._attribute(raw, "model")
        if seclabel.model is not None and _size(seclabel.model) > _MAX_MODEL:
            seclabel.model = None
        text = self._attribute(raw, "type")
        absent = "dynamic" if self._old else "default"
        if text is not None and text not in _TYPES:
            yield self._invalid_attribute(
                "P2",
                raw,
                "type",
                text,
                "write type='dynamic', type='static' or type='none'",
                (_UNSUPPORTED, "invalid security type"),
            )
            return
        seclabel.type = text or absent
        relabel = self._relabel(raw)
        if isinstance(relabel, Problem):
            yield relabel
            return
        if relabel is None:
            relabel = seclabel.type in ("dynamic", "default")
        seclabel.relabel = relabel
        if seclabel.type == "dynamic" and not relabel:
            yield _refused(
                "P4",
                raw,
                "type 'dynamic' goes with relabelling only: a label that is new at each start "
                "must be set on the images",
                "leave out relabel='no', or use type='static' with a label of your own",
                _UNSUPPORTED,
                "dynamic label type must use resource relabeling",
            )
            return
        if seclabel.type == "none" and relabel:
            yield _refused(
                "P5",
                raw,
                "type 'none' has no label that images could be given",
                "leave out relabel='yes', or use type='dynamic'",
                _UNSUPPORTED,
                "resource relabeling is not compatible with 'none' label type",
            )
            return
        if seclabel.model == "none":
            if self._live and seclabel.type != "none":
                yield _refused(
                    "P6",
                    raw,
                    f"model 'none' goes with type 'none' only, not with {seclabel.type!r}",
                    "name the model that is meant, or remove the element",
                    _UNSUPPORTED,
                    "to model 'none'",
                )
                return
            # libvirt mends what older versions let pass, and looks at no child.
            seclabel.type = "none"
            seclabel.relabel = False
            return
        yield from self._parse_texts(seclabel)

    def _parse_texts(self, seclabel: _Domain) -> Iterator[Problem]:
        raw = seclabel.raw
        live = self._live and seclabel.type != "none"
        if seclabel.type == "static" or live:
            label = raw.text("label")
            if label is None or _size(label) > _MAX_LABEL:
                what = "no label" if label is None else f"a label of over {_MAX_LABEL} bytes"
                kind = "static" if seclabel.type == "static" else "running"
                yield _refused(
                    "P7",
                    raw,
                    f"a {kind} guest's seclabel has {what}",
                    "add <label>user:role:type:range</label>, such as "
                    "system_u:system_r:svirt_t:s0:c87,c520",
                    _XML_ERROR,
                    "security label is missing",
                    line=raw.line_of("label"),
                )
                return
            seclabel.label = label
        if live and seclabel.relabel:
            image_label = raw.text("imagelabel")
            if image_label is None or _size(image_label) > _MAX_LABEL:
                yield _refused(
                    "P8",
                    raw,
                    "a running guest whose images are relabelled has no <imagelabel>",
                    "restore the status file; only libvirt writes it",
                    _XML_ERROR,
                    "security imagelabel is missing",
                    line=raw.line_of("imagelabel"),
                )
                return
        if seclabel.type == "dynamic":
            baselabel = raw.text("baselabel")
            if baselabel is not None and _size(baselabel) <= _MAX_LABEL:
                seclabel.baselabel = baselabel

    def _fill_in(self, seclabel: _Domain) -> Iterator[Problem]:
        """Name the model of a single seclabel, as versions before 0.10 knew none."""
        model = self.target.default_model
        if model is None or seclabel.type is None:
            return
        fillable = seclabel.type == "none" or (
            seclabel.type == "dynamic" and seclabel.baselabel is None and not self._live
        )
        if fillable:
            seclabel.model = model
            if model == "none" and not self._live:
                seclabel.type = "none"
                seclabel.relabel = False
            return
        if not seclabel.refused:
            what = "without a type" if seclabel.type == "default" else f"of type {seclabel.type!r}"
            if seclabel.type == "dynamic":
                what += " with a baselabel"
            yield _refused(
                "P10",
                seclabel.raw,
                f"a seclabel {what} must name its model",
                "add model='selinux'",
                _XML_ERROR,
                "missing security model in domain seclabel",
            )

    def _parse_source(self, source: RawSource) -> Iterator[Problem]:
        """Follow ``virSecurityDeviceLabelDefParseXML``."""
        seen: list[str] = []
        for raw in source.seclabels:
            device = _Device(source, raw, raw.get("model"))
            for problem in self._parse_device(device, seen):
                device.refused = True
                yield problem
            if device.model is not None:
                seen.append(device.model)
            self.devices.append(device)

    def _parse_device(self, device: _Device, seen: list[str]) -> Iterator[Problem]:
        raw = device.raw
        if device.model in seen:
            yield self._duplicate("D1", raw, device.model, device.source.name)
            return
        relabel = self._relabel(raw, "D2")
        if isinstance(relabel, Problem):
            yield relabel
            return
        device.relabel = relabel is not False
        skip = self._attribute(raw, "labelskip")
        # What libvirt is given for a snapshot or a backup it parses as of a running guest.
        live = self._live or device.source.place in (Place.SNAPSHOT, Place.BACKUP)
        if live and skip is not None and skip not in ("yes", "no"):
            yield self._invalid_attribute(
                "D5", raw, "labelskip", skip, "leave labelskip out; only libvirt writes it", None
            )
            return
        label = raw.text("label")
        device.label = label if label is not None and _size(label) <= _MAX_LABEL else None
        if device.label is not None and not device.relabel:
            yield _refused(
                "D3",
                raw,
                "it has a label, and relabel='no' forbids to set one",
                "leave out relabel='no', or leave out the label",
                _XML_ERROR,
                "Cannot specify a label if relabelling is turned off",
            )
        elif (
            device.label is None
            and relabel is True
            and self.target.version is not None
            and self.target.version >= _RELABEL_NEEDS_LABEL
        ):
            yield _refused(
                "D4",
                raw,
                "it asks to relabel, and names no label",
                "add <label>, or leave the seclabel out: without it the image gets the guest's "
                "own label",
                _XML_ERROR,
                "Cannot specify relabel if label is missing",
            )

    def _attribute(self, raw: RawSeclabel, name: str) -> Optional[str]:
        """Return an attribute; older versions took an empty one for an absent one."""
        text = raw.get(name)
        return None if text == "" and self._old and name != "model" else text

    def _relabel(self, raw: RawSeclabel, code: str = "P3") -> Optional[bool] | Problem:
        text = self._attribute(raw, "relabel")
        if text in ("yes", "no"):
            return text == "yes"
        if text is None:
            return None
        old = (_XML_ERROR, "invalid security relabel value") if code == "P3" else None
        return self._invalid_attribute(
            code, raw, "relabel", text, "write relabel='yes' or relabel='no'", old
        )

    def _invalid_attribute(
        self,
        code: str,
        raw: RawSeclabel,
        name: str,
        text: str,
        remedy: str,
        old: Optional[tuple[int, str]],
    ) -> Problem:
        """Return the problem of an attribute (``virXMLPropEnum``)."""
        error, fragment = _XML_ERROR, f"Invalid value for attribute '{name}' in element 'seclabel'"
        if self._old and old is not None:
            error, fragment = old
        return _refused(
            code,
            raw,
            f"{name} {quote(text)} is no value that libvirt knows",
            remedy,
            error,
            fragment,
        )

    def _duplicate(self, code: str, raw: RawSeclabel, model: Optional[str], of: str) -> Problem:
        what = (
            "a second one without a model"
            if model is None
            else f"a second one of the model {quote(model)}"
        )
        return _refused(
            code,
            raw,
            f"it is {what}; {of} may have one of each",
            "keep one of them",
            _XML_DETAIL,
            "is already provided",
        )

    def _reads(self, source: RawSource) -> bool:
        """Tell whether this version of libvirt reads seclabels in a place."""
        if source.place is Place.MIRROR:
            # Inactive XML loses the whole element (virDomainDiskDefParseXML).
            return self._live
        if source.place is Place.NVRAM:
            return not self.target.before(_NVRAM_SOURCE)
        if source.place is Place.DATA:
            return not self.target.before(_DATA_STORE)
        if source.place is Place.SNAPSHOT:
            return source.kind not in ("volume", "dir")
        return True

    # What libvirt refuses to define.

    def define(self) -> Iterator[Problem]:
        """Yield what libvirt's validation refuses (V1).

        Follows ``virSecurityDeviceLabelDefValidate``; status files and the domains inside of
        snapshots are not validated.
        """
        if self.document.kind is not DocumentKind.DOMAIN:
            return
        kept = {
            seclabel.model
            for seclabel in self.domain
            if seclabel.relabel is False and not seclabel.refused
        }
        for device in self._in_order_of_validation(
            Place.DISK, Place.BACKING, Place.SERIAL, Place.PARALLEL, Place.CHANNEL, Place.CONSOLE
        ):
            if device.model in kept:
                which = "without a model" if device.model is None else f"for {device.model!r}"
                yield _refused(
                    "V1",
                    device.raw,
                    f"the domain's seclabel {which} turns relabelling off, so that no device can "
                    "be an exception",
                    "remove it, or set relabel='yes' in the domain's seclabel",
                    _UNSUPPORTED,
                    "label overrides require relabeling to be enabled at the domain level",
                    layer=Layer.DEFINE,
                )

    def _in_order_of_validation(self, *places: Place) -> Iterator[_Device]:
        """Yield devices by places (``virDomainDeviceInfoIterateFlags``)."""
        disks = (Place.DISK, Place.BACKING)
        for place in places:
            if place is Place.BACKING:
                continue
            wanted = disks if place is Place.DISK and Place.BACKING in places else (place,)
            for device in self.devices:
                if device.source.place in wanted and not device.source.replaced:
                    yield device

    # What libvirt refuses to start.

    def start(self) -> Iterator[Problem]:
        """Yield what libvirt's security manager refuses (S1 to S5)."""
        if self.target.driver == "test" or self.document.kind not in (
            DocumentKind.DOMAIN,
            DocumentKind.SECLABEL,
        ):
            return
        yield from self._missing_models()
        for model in self.target.models or (_SELINUX, "dac"):
            seclabel = next((label for label in self.domain if label.model == model), None)
            if seclabel is None or seclabel.refused:
                continue
            if seclabel.type == "none" and self.target.require_confined:
                yield _refused(
                    "S2",
                    seclabel.raw,
                    "type 'none' starts the guest unconfined, and this host forbids that "
                    "(security_require_confined)",
                    "use type='dynamic'",
                    _UNSUPPORTED,
                    "Unconfined guests are not allowed on this host",
                    layer=Layer.START,
                )
            if model == _SELINUX:
                yield from self._selinux_start(seclabel)

    def _missing_models(self) -> Iterator[Problem]:
        """Follow ``virSecurityManagerCheckAllLabel``."""
        for seclabel in self.domain:
            if not seclabel.refused and seclabel.model is not None:
                yield from self._missing_model(seclabel.raw, seclabel.model)
        for device in self._in_order_of_validation(
            Place.DISK, Place.SERIAL, Place.PARALLEL, Place.CHANNEL, Place.CONSOLE
        ):
            if not (device.refused or device.source.alias_of_serial):
                yield from self._missing_model(device.raw, device.model)

    def _missing_model(self, raw: RawSeclabel, model: Optional[str]) -> Iterator[Problem]:
        if model == "none" or (model is not None and self.target.models is None):
            return
        models = self.target.models or ()
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
        yield _refused(
            "S1",
            raw,
            reason,
            remedy,
            _UNSUPPORTED,
            "is not available",
            layer=Layer.START,
        )

    def _selinux_start(self, seclabel: _Domain) -> Iterator[Problem]:
        """Follow ``virSecuritySELinuxGenLabel``."""
        raw = seclabel.raw
        if seclabel.type == "static" and seclabel.label is not None:
            text = seclabel.label
            if not _splits(text):
                padded = text != text.strip() and _splits(text.strip())
                yield _refused(
                    "S3",
                    raw,
                    "white space around the label belongs to it for libvirt"
                    if padded
                    else f"the label {quote(text)} is no user:role:type:range",
                    "write <label> and its text on one line, without white space"
                    if padded
                    else "write a whole context, such as system_u:system_r:svirt_t:s0:c87,c520",
                    _SYSTEM_ERROR,
                    "unable to allocate socket security context",
                    layer=Layer.START,
                    line=raw.line_of("label"),
                    label=text,
                )
            elif text.count(":") < 3 or not text.split(":", 3)[3]:
                yield _refused(
                    "S4",
                    raw,
                    f"the label {quote(text)} has no range, by which guests are kept apart",
                    "append a level with two categories, such as :s0:c87,c520",
                    _SYSTEM_ERROR,
                    "unable to get selinux context range",
                    layer=Layer.START,
                    line=raw.line_of("label"),
                    label=text,
                )
        elif seclabel.type == "dynamic" and seclabel.baselabel is not None:
            text = seclabel.baselabel
            if not _splits(text):
                yield _refused(
                    "S5",
                    raw,
                    f"the baselabel {quote(text)} is no user:role:type",
                    "write a context without categories, such as system_u:system_r:svirt_t:s0",
                    _SYSTEM_ERROR,
                    "Unable to parse base SELinux context",
                    layer=Layer.START,
                    line=raw.line_of("baselabel"),
                    label=text,
                )

    # What the kernel refuses.

    def policy(
        self,
        told: set[tuple[Optional[int], str]],
        refusal: Optional[Callable[[str], str]],
    ) -> Iterator[Problem]:
        """Yield labels that are no contexts, or not in the kernel's spelling.

        Args:
            told: lines and labels about which there is a problem already.
            refusal: asks a policy; see :func:`validate`.
        """
        for raw, name, text in self._contexts():
            if text is not None and (raw.line_of(name), text) not in told:
                yield from _judge_context(raw, name, text, refusal)

    def _contexts(self) -> Iterator[tuple[RawSeclabel, str, Optional[str]]]:
        """Yield the contexts that are given to the kernel, with the element that states each."""
        for seclabel in self.domain:
            if seclabel.model not in (None, _SELINUX) or seclabel.refused:
                continue
            raw = seclabel.raw
            if seclabel.type == "static" or (self.document.live and seclabel.type != "none"):
                yield raw, "label", raw.text("label")
            if self.document.live and seclabel.type != "none":
                yield raw, "imagelabel", raw.text("imagelabel")
            if seclabel.baselabel is not None:
                yield raw, "baselabel", seclabel.baselabel
        for device in self.devices:
            if device.model == _SELINUX and not device.refused:
                yield device.raw, "label", device.label

    # What has no effect.

    def advice(self) -> Iterator[Problem]:
        """Yield what libvirt accepts and ignores, or takes for something else."""
        for seclabel in self.domain:
            yield from _unknown_parts(seclabel.raw, _DOMAIN_ATTRIBUTES, _DOMAIN_CHILDREN)
            if not seclabel.refused and seclabel.type is not None:
                yield from self._domain_advice(seclabel)
        yield from self._other_models_alone()
        for device in self.devices:
            yield from _unknown_parts(device.raw, _DEVICE_ATTRIBUTES, _DEVICE_CHILDREN)
            if not device.refused:
                yield from self._device_advice(device)
        for source in self.document.sources:
            if not self._reads(source) and not self.document.live:
                for raw in source.seclabels:
                    yield _unread(raw, f"this libvirt reads no seclabel of a {source.place.value}")
        for raw in self.document.unread:
            yield _unread(raw, "libvirt reads no seclabel there")

    def _domain_advice(self, seclabel: _Domain) -> Iterator[Problem]:
        raw = seclabel.raw
        written = self._attribute(raw, "type")
        model = raw.get("model")
        if model is not None and _size(model) > _MAX_MODEL:
            yield _ignored(
                "I17",
                raw,
                f"a model of over {_MAX_MODEL} bytes counts as absent",
                "write model='selinux'",
            )
        if seclabel.model == "none":
            if _SELINUX in (self.target.models or (_SELINUX,)) and not self._live:
                yield _ignored(
                    "I3",
                    raw,
                    "model 'none' is no security model, so this neither confines the guest nor "
                    "lets it go: it gets the dynamic label of each model of the host",
                    "remove the element; to run a guest unconfined, which is no good idea, write "
                    "type='none' model='selinux'",
                )
            return
        if seclabel.type == "default" and seclabel.relabel is False:
            yield _ignored(
                "I1",
                raw,
                "without a type, relabel='no' passes: the guest gets a new label at each start, "
                "and its images do not",
                "write type='dynamic' without relabel, or type='static' with a label",
            )
        yield from self._lost_texts(seclabel, written)
        if seclabel.model == _SELINUX and seclabel.baselabel is not None:
            yield from _baselabel_parts(raw, seclabel.baselabel)

    def _lost_texts(self, seclabel: _Domain, written: Optional[str]) -> Iterator[Problem]:
        """Yield texts of a domain's seclabel that libvirt does not keep."""
        raw = seclabel.raw
        kind = "a seclabel without a type" if written is None else f"type {written!r}"
        if raw.text("baselabel") is not None and seclabel.baselabel is None:
            if seclabel.type == "dynamic":
                reason = f"a baselabel of over {_MAX_LABEL} bytes is dropped"
            else:
                reason = f"{kind} has no baselabel; libvirt drops it"
            yield _ignored(
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
            elif not self.document.live:
                code = "I5"
                reason = f"libvirt takes a <{name}> only from its own record of a running guest"
                if name == "label":
                    reason += ", and draws one at each start"
            else:
                continue
            remedy = "remove it"
            if name == "label" and code == "I5":
                remedy += "; for a label of your own write type='static'"
            yield _ignored(code, raw, reason, remedy, line=raw.line_of(name))

    def _other_models_alone(self) -> Iterator[Problem]:
        """Tell that a seclabel of another model leaves SELinux as it is."""
        if self.target.driver == "test" or self.document.kind is not DocumentKind.DOMAIN:
            return
        models = [seclabel.model for seclabel in self.domain]
        if not models or self.document.live or any(label.refused for label in self.domain):
            return
        if {_SELINUX, None, "none"} & set(models):
            return
        if _SELINUX in (self.target.models or (_SELINUX,)):
            named = " and ".join(sorted({quote(model) for model in models if model}))
            yield _ignored(
                "I4",
                self.domain[0].raw,
                f"the seclabels are for {named} alone; SELinux still gives the guest a dynamic "
                "label",
                "nothing, if that is meant; else add a seclabel with model='selinux'",
                severity="info",
            )

    def _device_advice(self, device: _Device) -> Iterator[Problem]:
        raw, source = device.raw, device.source
        label = raw.text("label")
        if label is not None and device.label is None:
            yield _ignored(
                "I18",
                raw,
                f"a label of over {_MAX_LABEL} bytes counts as absent",
                "write a context",
                line=raw.line_of("label"),
            )
        if self.document.live:
            # What libvirt itself prints of a running guest.
            return
        if raw.get("labelskip") is not None and source.place not in (Place.SNAPSHOT, Place.BACKUP):
            yield _ignored(
                "I11",
                raw,
                "libvirt takes labelskip only from its own record of a running guest",
                "remove it; to leave the image alone write relabel='no'",
            )
        elif device.label is None and device.relabel:
            yield _ignored(
                "I10",
                raw,
                "without a label it overrides nothing, and libvirt drops it",
                "add <label>, or write relabel='no', or remove it",
            )
        if source.replaced:
            yield _ignored(
                "I13",
                raw,
                "the first console stands for the first serial port, whose <source> counts",
                "move it to the <source> of the first serial port",
            )
        elif source.place.character and source.kind not in _LABELLED_CHARACTER:
            yield _ignored(
                "I13",
                raw,
                f"libvirt labels nothing for a character device of type {quote(source.kind)}, and "
                "drops it",
                "remove it",
            )
        elif not source.place.character and source.kind == "network":
            yield _ignored(
                "I13", raw, "network storage carries no label; libvirt drops it", "remove it"
            )
        elif source.place is Place.DISK and source.kind == "dir":
            yield _ignored(
                "I13", raw, "libvirt does not label a directory that plays a disk", "remove it"
            )
        else:
            yield from self._no_effect(device)

    def _no_effect(self, device: _Device) -> Iterator[Problem]:
        """Yield overrides for no model, where libvirt does not refuse to start for it."""
        raw, source = device.raw, device.source
        refused_at_start = self.target.driver != "test" and (
            source.place is Place.DISK or (source.place.character and not source.alias_of_serial)
        )
        if device.model is None:
            if not refused_at_start:
                yield _ignored(
                    "I8", raw, "it names no model, so it overrides none", "add model='selinux'"
                )
        elif self.target.models is not None and device.model not in self.target.models:
            if not refused_at_start:
                yield _ignored(
                    "I9",
                    raw,
                    f"the host has no security model {quote(device.model)}",
                    "remove it, or use a model of the host",
                )
        elif source.place in (Place.NVRAM, Place.MIRROR, Place.DATA) and any(
            seclabel.model == device.model and seclabel.relabel is False for seclabel in self.domain
        ):
            yield _ignored(
                "I20",
                raw,
                "the domain's seclabel turns relabelling off, here too",
                "remove it, or set relabel='yes' in the domain's seclabel",
            )


def _size(text: str) -> int:
    """Return a text's length in bytes, as libvirt counts it."""
    return len(text) if text.isascii() else len(text.encode())


def _splits(text: str) -> bool:
    """Tell whether libselinux takes a text for a context (``context_new``).

    It looks for two colons and for white space, and at nothing else.
    """
    if any(character in text for character in "\n\t\r"):
        return False
    return text.count(":") >= 2 and " " not in ":".join(text.split(":", 3)[:3])


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
        yield _ignored(
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
            yield _ignored(
                "I14",
                raw,
                f"libvirt knows no attribute {quote(name)} here",
                _instead(name, attributes),
            )
    seen: set[str] = set()
    for child in raw.children:
        if child.name not in children:
            yield _ignored(
                "I14",
                raw,
                f"libvirt knows no element <{child.name}> here",
                _instead(child.name, children),
                line=child.line,
            )
        elif child.name in seen:
            yield _ignored(
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
    return _ignored(
        "I12",
        raw,
        reason,
        "move it into the <source> of a disk or of a character device with a file, or remove it",
    )


def _refused(
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
    line = raw.line if line is None else line
    return Problem(
        code, REJECTED, "high", layer, raw.path, line, reason, remedy, error, fragment, label
    )


def _ignored(
    code: str,
    raw: RawSeclabel,
    reason: str,
    remedy: str,
    *,
    line: Optional[int] = None,
    severity: str = "low",
) -> Problem:
    line = raw.line if line is None else line
    return Problem(code, IGNORED, severity, Layer.ADVICE, raw.path, line, reason, remedy)

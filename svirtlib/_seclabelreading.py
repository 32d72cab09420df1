"""The seclabels of a document as libvirt's parser understands them, and what it refuses to read.

Each check names the function of libvirt 9.0 that it follows; what other versions do differently
hangs on :attr:`Target.version`. Reads neither XML nor the system.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Optional

from attr import field, frozen, mutable

from svirtlib.errors import quote
from svirtlib.problems import Problem, refused
from svirtlib.rawseclabel import (
    SELINUX,
    DocumentKind,
    Place,
    RawSeclabel,
    RawSource,
    SeclabelDocument,
)

__all__ = [
    "MAX_LABEL",
    "MAX_MODEL",
    "NEWEST",
    "UNSUPPORTED",
    "ReadOverride",
    "ReadSeclabel",
    "Reading",
    "Target",
    "size",
]

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
MAX_LABEL = 4096
MAX_MODEL = 256

_TYPES = ("dynamic", "static", "none")

#: libvirt's numbers of errors (``virErrorNumber``).
_XML_ERROR = 27
_XML_DETAIL = 35
UNSUPPORTED = 67


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
        return self.models[0] if self.models else SELINUX

    def before(self, version: tuple[int, int]) -> bool:
        """Whether it is known to be older than a version."""
        return self.version is not None and self.version < version


@mutable
class ReadSeclabel:
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
class ReadOverride:
    """A device's seclabel as libvirt understands it."""

    source: RawSource
    raw: RawSeclabel
    model: Optional[str] = None
    relabel: bool = True
    label: Optional[str] = None
    refused: bool = False


@mutable
class Reading:
    """A document as libvirt reads it; :meth:`parse` comes first and fills the values.

    Attributes:
        document: what is read.
        target: the libvirt that reads it.
        domain: the domain's own seclabels.
        devices: those of devices, where this libvirt reads them.
    """

    document: SeclabelDocument
    target: Target
    domain: list[ReadSeclabel] = field(factory=list)
    devices: list[ReadOverride] = field(factory=list)

    @property
    def _old(self) -> bool:
        return self.target.before(_PRESENT_PARSER)

    @property
    def live(self) -> bool:
        """Whether libvirt parses the document as that of a running guest.

        Only its own status files; it takes what users give it for inactive, whatever it shows.
        """
        return self.document.kind is DocumentKind.STATUS

    def parse(self) -> Iterator[Problem]:
        """Yield what libvirt's parser refuses (P1 to P11, D1 to D5)."""
        yield from self._parse_domain()
        for source in self.document.sources:
            if self.reads(source):
                yield from self._parse_source(source)

    def _parse_domain(self) -> Iterator[Problem]:
        """Follow ``virSecurityLabelDefsParseXML``."""
        for raw in self.document.seclabels:
            seclabel = ReadSeclabel(raw)
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
                    yield refused(
                        "P11",
                        seclabel.raw,
                        "it names no model, which it must where a domain has several seclabels",
                        "add model='selinux' (or the model that is meant)",
                        _XML_ERROR,
                        "missing security model when using multiple labels",
                    )

    def _parse_seclabel(self, seclabel: ReadSeclabel) -> Iterator[Problem]:
        """Follow ``virSecurityLabelDefParseXML``, which stops at the first fault."""
        raw = seclabel.raw
        seclabel.model = self.attribute(raw, "model")
        if seclabel.model is not None and size(seclabel.model) > MAX_MODEL:
            seclabel.model = None
        text = self.attribute(raw, "type")
        absent = "dynamic" if self._old else "default"
        if text is not None and text not in _TYPES:
            yield self._invalid_attribute(
                "P2",
                raw,
                "type",
                text,
                "write type='dynamic', type='static' or type='none'",
                (UNSUPPORTED, "invalid security type"),
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
            yield refused(
                "P4",
                raw,
                "type 'dynamic' goes with relabelling only: a label that is new at each start "
                "must be set on the images",
                "leave out relabel='no', or use type='static' with a label of your own",
                UNSUPPORTED,
                "dynamic label type must use resource relabeling",
            )
            return
        if seclabel.type == "none" and relabel:
            yield refused(
                "P5",
                raw,
                "type 'none' has no label that images could be given",
                "leave out relabel='yes', or use type='dynamic'",
                UNSUPPORTED,
                "resource relabeling is not compatible with 'none' label type",
            )
            return
        if seclabel.model == "none":
            if self.live and seclabel.type != "none":
                yield refused(
                    "P6",
                    raw,
                    f"model 'none' goes with type 'none' only, not with {seclabel.type!r}",
                    "name the model that is meant, or remove the element",
                    UNSUPPORTED,
                    "to model 'none'",
                )
                return
            # libvirt mends what older versions let pass, and looks at no child.
            seclabel.type = "none"
            seclabel.relabel = False
            return
        yield from self._parse_texts(seclabel)

    def _parse_texts(self, seclabel: ReadSeclabel) -> Iterator[Problem]:
        raw = seclabel.raw
        live = self.live and seclabel.type != "none"
        if seclabel.type == "static" or live:
            label = raw.text("label")
            if label is None or size(label) > MAX_LABEL:
                what = "no label" if label is None else f"a label of over {MAX_LABEL} bytes"
                kind = "static" if seclabel.type == "static" else "running"
                yield refused(
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
            if image_label is None or size(image_label) > MAX_LABEL:
                yield refused(
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
            if baselabel is not None and size(baselabel) <= MAX_LABEL:
                seclabel.baselabel = baselabel

    def _fill_in(self, seclabel: ReadSeclabel) -> Iterator[Problem]:
        """Name the model of a single seclabel, as versions before 0.10 knew none."""
        model = self.target.default_model
        if model is None or seclabel.type is None:
            return
        fillable = seclabel.type == "none" or (
            seclabel.type == "dynamic" and seclabel.baselabel is None and not self.live
        )
        if fillable:
            seclabel.model = model
            if model == "none" and not self.live:
                seclabel.type = "none"
                seclabel.relabel = False
            return
        if not seclabel.refused:
            what = "without a type" if seclabel.type == "default" else f"of type {seclabel.type!r}"
            if seclabel.type == "dynamic":
                what += " with a baselabel"
            yield refused(
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
            device = ReadOverride(source, raw, raw.get("model"))
            for problem in self._parse_device(device, seen):
                device.refused = True
                yield problem
            if device.model is not None:
                seen.append(device.model)
            self.devices.append(device)

    def _parse_device(self, device: ReadOverride, seen: list[str]) -> Iterator[Problem]:
        raw = device.raw
        if device.model in seen:
            yield self._duplicate("D1", raw, device.model, device.source.name)
            return
        relabel = self._relabel(raw, "D2")
        if isinstance(relabel, Problem):
            yield relabel
            return
        device.relabel = relabel is not False
        skip = self.attribute(raw, "labelskip")
        # What libvirt is given for a snapshot or a backup it parses as of a running guest.
        live = self.live or device.source.place in (Place.SNAPSHOT, Place.BACKUP)
        if live and skip is not None and skip not in ("yes", "no"):
            yield self._invalid_attribute(
                "D5", raw, "labelskip", skip, "leave labelskip out; only libvirt writes it", None
            )
            return
        label = raw.text("label")
        device.label = label if label is not None and size(label) <= MAX_LABEL else None
        if device.label is not None and not device.relabel:
            yield refused(
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
            yield refused(
                "D4",
                raw,
                "it asks to relabel, and names no label",
                "add <label>, or leave the seclabel out: without it the image gets the guest's "
                "own label",
                _XML_ERROR,
                "Cannot specify relabel if label is missing",
            )

    def attribute(self, raw: RawSeclabel, name: str) -> Optional[str]:
        """Return an attribute; older versions took an empty one for an absent one."""
        text = raw.get(name)
        return None if text == "" and self._old and name != "model" else text

    def _relabel(self, raw: RawSeclabel, code: str = "P3") -> Optional[bool] | Problem:
        text = self.attribute(raw, "relabel")
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
        return refused(
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
        return refused(
            code,
            raw,
            f"it is {what}; {of} may have one of each",
            "keep one of them",
            _XML_DETAIL,
            "is already provided",
        )

    def reads(self, source: RawSource) -> bool:
        """Tell whether this version of libvirt reads seclabels in a place."""
        if source.place is Place.MIRROR:
            # Inactive XML loses the whole element (virDomainDiskDefParseXML).
            return self.live
        if source.place is Place.NVRAM:
            return not self.target.before(_NVRAM_SOURCE)
        if source.place is Place.DATA:
            return not self.target.before(_DATA_STORE)
        if source.place is Place.SNAPSHOT:
            return source.kind not in ("volume", "dir")
        return True


def size(text: str) -> int:
    """Return a text's length in bytes, as libvirt counts it."""
    return len(text) if text.isascii() else len(text.encode())

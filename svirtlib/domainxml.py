"""libvirt's domain XML, read into :class:`~svirtlib.guests.Guest` values.

Documents are untrusted: entities, external DTDs and network access are off, a DOCTYPE is
refused, and size and depth are bounded. What libvirt ignores is ignored here. A seclabel that
it refuses, or that has no effect, becomes a problem of the guest.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Optional

from lxml import etree

from svirtlib.diskname import without_secret
from svirtlib.errors import DomainXMLError
from svirtlib.guests import Guest, Image, ImageKind, ImageMode, ImageUse
from svirtlib.problems import IGNORED, REJECTED, Problem
from svirtlib.seclabel import SELINUX, DeviceSeclabel, Seclabel, SeclabelType
from svirtlib.seclabelxml import read_domain
from svirtlib.validation import Target, validate
from svirtlib.xmltree import MAX_BYTES, line_of, parse_tree

if TYPE_CHECKING:
    from svirtlib.devices import Devices

__all__ = ["MAX_BYTES", "OtherDocumentError", "parse_document"]

#: Elements that hold domains: a domain itself, libvirt's status files and the host files of
#: its test driver.
_ROOTS = ("domain", "domstatus", "node")

#: libvirt ``virDomainOSDefParseXML``: files that are loaded at start and never written.
_BOOT_FILES = {
    "kernel": ImageUse.KERNEL,
    "initrd": ImageUse.INITRD,
    "dtb": ImageUse.DTB,
}

#: The children of ``<os>`` that name files.
_BOOT_PARTS = frozenset({*_BOOT_FILES, "acpi", "nvram"})

_IMAGE_KINDS = {kind.value: kind for kind in ImageKind}

#: For the kinds of storage that have a path, the attribute of ``<source>`` that holds it.
_PATHS = {
    "file": "file",
    "block": "dev",
    "dir": "dir",
    "vhostuser": "path",
    "vhostvdpa": "dev",
}

#: DEFAULT is libvirt's name for an absent attribute; written out it is refused.
_SECLABEL_TYPES = {kind.value: kind for kind in SeclabelType if kind is not SeclabelType.DEFAULT}

#: Of a document neither the host's models nor libvirt's version are known.
_TARGET = Target(models=None, version=None)
#: Of other hypervisors' drivers libvirt knows no model to fill in, like of its test driver's.
_TARGET_WITHOUT_MODEL = Target(driver="test", models=None, version=None)
_FILLED_IN = frozenset({"qemu", "kvm", "kqemu", "hvf", "lxc"})
#: Labels that are none, of which the rule label-invalid tells.
_TOLD_BY_LABEL_RULES = frozenset({"S3", "S4", "S5"})

#: Guests' seclabels are alike: most need no second look. Bounded in number and size, as
#: documents may have been written to fill it.
_Shape = tuple[object, ...]
_SHAPES_WITHOUT_PROBLEM: set[_Shape] = set()
_MOST_SHAPES = 1000
_LONG = 1000

#: A UUID as libvirt writes it.
_UUID = re.compile("[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")

#: The children of a domain that are read here.
_PARTS = ("name", "uuid", "os", "devices")

#: The first child of each name.
_Children = dict[object, etree._Element]


class OtherDocumentError(DomainXMLError):
    """Well-formed XML that describes something else, such as a network.

    Attributes:
        root: name of the root element.
    """

    def __init__(self, source: str, root: str, line: Optional[int] = None) -> None:
        self.root = root
        super().__init__(source, f"no domain XML: its root element is <{root}>, not <domain>", line)

    def __reduce__(self) -> tuple[object, ...]:
        return (type(self), (self.source, self.root, self.line))


def parse_document(data: bytes, source: str, *, devices: bool = False) -> tuple[Guest, ...]:
    """Return the guests of a document: one of a ``<domain>``, many of a ``<node>``.

    Args:
        data: the document, in any encoding that it declares.
        source: where it came from, for messages.
        devices: read consoles and other devices too; what only compares labels needs none.

    Raises:
        OtherDocumentError: the document is well-formed, but of another kind.
        DomainXMLError: the document is malformed, too large, has a DOCTYPE, or is no domain
            that libvirt could have written.
    """
    root = parse_tree(data, source, "the output of 'virsh dumpxml'")
    tag = _tag(root)
    if tag == "domain":
        return (_guest(root, source, devices=devices),)
    if tag not in _ROOTS:
        raise OtherDocumentError(source, tag, line_of(root))
    domains = [child for child in root if _tag(child) == "domain"]
    if not domains:
        raise OtherDocumentError(source, tag, line_of(root))
    return tuple(_guest(domain, source, devices=devices) for domain in domains)


def _tag(element: etree._Element) -> str:
    """Return the element's name; what is in a namespace of its own is none of libvirt's."""
    return element.tag if isinstance(element.tag, str) else ""


def _children(element: etree._Element) -> _Children:
    """Return the first child of each name; one walk costs less than a search for each."""
    # Backwards, so that of several the first is the last that is put in. A slice, as each
    # iterator of lxml ends with an exception that costs as much as two elements.
    return {child.tag: child for child in element[::-1]}


def _text(element: Optional[etree._Element]) -> Optional[str]:
    """Return all text in *element*, untrimmed, or None where there is no element."""
    if element is None:
        return None
    return "".join(element.itertext(None)) if len(element) else element.text or ""


def _guest(domain: etree._Element, source: str, *, devices: bool) -> Guest:
    parts: _Children = {}
    devices_parts: list[etree._Element] = []
    # Only what is looked at: each element that is touched costs something.
    for child in domain.iterchildren(*_PARTS):
        tag = child.tag
        if tag == "devices":
            devices_parts.append(child)
        else:
            parts.setdefault(tag, child)
    seclabels = list(domain.iter("{*}seclabel"))
    name = _text(parts.get("name"))
    if not name:
        raise DomainXMLError(source, "the domain has no <name>", line_of(domain))
    identifier = domain.get("id")
    running = identifier is not None and identifier != "-1"
    return Guest(
        name=name,
        uuid=_uuid(parts, source),
        # libvirt writes an id for active domains alone; -1 is its number for none.
        running=running,
        virt_type=domain.get("type", ""),
        source=source,
        seclabels=tuple([_seclabel(one) for one in seclabels if _is_own(one, domain)]),
        images=tuple(_images(parts.get("os"), devices_parts)),
        seclabel_problems=_problems(domain, seclabels, source) if seclabels else (),
        devices=_devices(domain, running=running) if devices else None,
    )


def _devices(domain: etree._Element, *, running: bool) -> Devices:
    # Most that read documents compare labels alone, and need none of these classes.
    from svirtlib.devicexml import read_devices

    return read_devices(domain, running=running)


def _uuid(parts: _Children, source: str) -> Optional[str]:
    text = _text(parts.get("uuid"))
    if text is None or _UUID.fullmatch(text):
        return text
    # Written by hand: rare, and the module is slow to load.
    import uuid

    try:
        return str(uuid.UUID(text.strip()))
    except ValueError:
        raise DomainXMLError(
            source, f"<uuid> holds no UUID: {text[:60]!a}", line_of(parts["uuid"])
        ) from None


def _is_own(seclabel: etree._Element, domain: etree._Element) -> bool:
    """Tell whether a seclabel is the domain's own, and not that of a device in it."""
    return seclabel.tag == "seclabel" and seclabel.getparent() is domain


def _problems(
    domain: etree._Element, elements: list[etree._Element], source: str
) -> tuple[Problem, ...]:
    """Return what libvirt refuses or ignores; labels are for rules that see more than one."""
    shape = _shape(domain, elements)
    if shape in _SHAPES_WITHOUT_PROBLEM:
        return ()
    document = read_domain(domain, source)
    target = _TARGET if document.virt_type in _FILLED_IN else _TARGET_WITHOUT_MODEL
    problems = tuple(
        problem
        for problem in validate(document, target)
        if problem.rule in (REJECTED, IGNORED)
        and problem.severity != "info"
        and problem.code not in _TOLD_BY_LABEL_RULES
    )
    if (
        shape is not None
        and not problems
        and len(_SHAPES_WITHOUT_PROBLEM) < _MOST_SHAPES
        and len(repr(shape)) <= _LONG
    ):
        _SHAPES_WITHOUT_PROBLEM.add(shape)
    return problems


def _shape(domain: etree._Element, elements: list[etree._Element]) -> Optional[_Shape]:
    """Return what decides on problems of seclabels, or None where only all of it does.

    Of a label only whether there is one: what it says, and what is wrong with that, are for
    the rules about labels.
    """
    identifier = domain.get("id")
    shape: list[object] = [identifier is None, identifier == "-1", domain.get("type")]
    for element in elements:
        if not _is_own(element, domain):
            return None
        shape += element.items()
        for child in element[:]:
            if len(child):
                return None
            tag, text = child.tag, child.text
            shape.append((tag, text if tag == "baselabel" else bool(text)))
        shape.append(None)
    return tuple(shape)


def _seclabel(element: etree._Element) -> Seclabel:
    type_text = element.get("type")
    # One that libvirt refuses is a problem of the guest, not the end of its document.
    kind = _SECLABEL_TYPES.get(type_text or "", SeclabelType.DEFAULT)
    parts = _children(element)
    return Seclabel(
        type=kind,
        model=element.get("model"),
        relabel=_relabel(element, kind in (SeclabelType.DYNAMIC, SeclabelType.DEFAULT)),
        label=_text(parts.get("label")),
        imagelabel=_text(parts.get("imagelabel")),
        baselabel=_text(parts.get("baselabel")),
        line=line_of(element),
    )


def _relabel(element: etree._Element, default: bool) -> bool:
    text = element.get("relabel")
    return text == "yes" if text in ("yes", "no") else default


def _device_seclabel(source: etree._Element) -> Optional[DeviceSeclabel]:
    """Return the SELinux override of a ``<source>``, if it has one."""
    for element in source.iterchildren("seclabel"):
        if element.get("model") == SELINUX:
            return DeviceSeclabel(
                model=SELINUX,
                relabel=element.get("relabel") != "no",
                # An empty label counts as none (libvirt virSecurityDeviceLabelDefParseXML).
                label=_text(_children(element).get("label")) or None,
                line=line_of(element),
            )
    return None


def _images(
    system: Optional[etree._Element], devices_parts: Iterable[etree._Element]
) -> list[Image]:
    images: list[Image] = []
    if system is not None:
        parts = _children(system)
        if not _BOOT_PARTS.isdisjoint(parts):
            images += _boot_images(system, parts)
    for devices in devices_parts:
        for disk in devices.iterchildren("disk"):
            _add_disk(images, disk)
    return images


def _boot_images(system: etree._Element, parts: _Children) -> Iterator[Image]:
    for tag, use in _BOOT_FILES.items():
        if tag in parts:
            yield from _plain_file(_text(parts[tag]), use, system)
    if "acpi" in parts:
        for table in system.iterfind("acpi/table"):
            yield from _plain_file(table.text, ImageUse.ACPI_TABLE, table)
    nvram = parts.get("nvram")
    if nvram is None:
        return
    source = _children(nvram).get("source")
    if source is None:
        yield from _plain_file(nvram.text, ImageUse.NVRAM, nvram, ImageMode.PRIVATE)
        return
    image = _source_image(
        source,
        nvram.get("type", "file"),
        ImageUse.NVRAM,
        ImageMode.PRIVATE,
        "nvram",
        seclabel=_device_seclabel(source),
    )
    if image is not None:
        yield image


def _plain_file(
    path: Optional[str],
    use: ImageUse,
    element: etree._Element,
    mode: ImageMode = ImageMode.READONLY,
) -> Iterator[Image]:
    path = (path or "").strip()
    if path:
        yield Image(
            use=use,
            kind=ImageKind.FILE,
            mode=mode,
            path=_normal(path),
            name=path,
            target=use.value,
            line=line_of(element),
        )


def _add_disk(images: list[Image], disk: etree._Element) -> None:
    """Add the images of a disk, a chain from its top down."""
    parts = _children(disk)
    target = parts["target"].get("dev", "") if "target" in parts else ""
    # Shareable wins over read-only, and a CD-ROM is read-only without saying so
    # (libvirt virDomainDiskDefParseXML, virSecuritySELinuxSetImageLabelInternal).
    if "shareable" in parts:
        mode = ImageMode.SHAREABLE
    elif "readonly" in parts or disk.get("device") == "cdrom":
        mode = ImageMode.READONLY
    else:
        mode = ImageMode.PRIVATE
    shared_base = "transient" in parts and parts["transient"].get("shareBacking") == "yes"
    _add_chain(images, parts, disk.get("type", "file"), ImageUse.DISK, mode, target, shared_base)
    mirror = parts.get("mirror")
    if mirror is not None:
        # A copy that is being made is written like the disk itself.
        kind = mirror.get("type", "file")
        _add_chain(images, _children(mirror), kind, ImageUse.MIRROR, mode, target, False)


def _add_chain(
    images: list[Image],
    parts: _Children,
    kind: str,
    use: ImageUse,
    mode: ImageMode,
    target: str,
    shared_base: bool,
) -> None:
    """Add the image of the disk, or other element, with these children and all below it."""
    inherited: Optional[DeviceSeclabel] = None
    while True:
        source = parts.get("source")
        below = parts.get("backingStore")
        if source is not None:
            inner = _children(source) if len(source) else {}
            if "seclabel" in inner:
                inherited = _device_seclabel(source) or inherited
            image = _source_image(
                source,
                kind,
                use,
                mode,
                target,
                inherited,
                _format(parts, use),
                below is not None,
                shared_base,
            )
            if image is not None:
                images.append(image)
            # A qcow2 image may keep its data in a second file (libvirt 10.10).
            for store in (inner.get("dataStore"), parts.get("dataStore")):
                data = None if store is None else _children(store).get("source")
                if store is not None and data is not None:
                    image = _source_image(
                        data, store.get("type", "file"), use, mode, target, inherited
                    )
                    if image is not None:
                        images.append(image)
        if below is None:
            return
        parts = _children(below)
        if "source" not in parts:
            return
        kind = below.get("type", "file")
        use = ImageUse.BACKING
        mode = ImageMode.READONLY
        shared_base = False


def _format(parts: _Children, use: ImageUse) -> Optional[str]:
    """Return the image format: in ``<driver>`` of a disk, in ``<format>`` of others."""
    holder = parts.get("driver" if use is ImageUse.DISK else "format")
    return None if holder is None else holder.get("type")


def _source_image(
    source: etree._Element,
    kind_text: str,
    use: ImageUse,
    mode: ImageMode,
    target: str,
    seclabel: Optional[DeviceSeclabel],
    image_format: Optional[str] = None,
    chain_known: bool = True,
    shared_on_purpose: bool = False,
) -> Optional[Image]:
    """Return the image of a ``<source>``, or None where it names none."""
    kind = _IMAGE_KINDS.get(kind_text)
    if kind is None:
        # A kind of storage that a newer libvirt knows: it has no path that we could judge.
        return None
    name = ""
    if kind is ImageKind.VOLUME:
        # Where libvirt has resolved a volume, live XML tells the path beside it.
        path = source.get("file") or source.get("dev")
        name = f"{source.get('pool', '')}/{source.get('volume', '')}"
    elif kind_text in _PATHS:
        path = source.get(_PATHS[kind_text])
    else:
        path = None
        name = _network_name(source) if kind is ImageKind.NETWORK else _nvme_name(source)
    if path:
        path = _normal(path)
        name = path
    if not name:
        return None
    return Image(
        use=use,
        kind=kind,
        mode=mode,
        path=path,
        name=name,
        target=target,
        seclabel=seclabel,
        format=image_format,
        chain_known=chain_known,
        shared_on_purpose=shared_on_purpose,
        line=line_of(source),
    )


def _network_name(source: etree._Element) -> str:
    hosts = ",".join(
        sorted(
            f"{host.get('name') or host.get('socket') or ''}:{host.get('port', '')}".rstrip(":")
            for host in source.findall("host")
        )
    )
    protocol = source.get("protocol", "network")
    return f"{protocol}://{hosts}/{without_secret(protocol, source.get('name', ''))}"


def _nvme_name(source: etree._Element) -> str:
    address = source.find("address")
    place = ""
    if address is not None:
        place = ":".join(
            _hex(address.get(part, "0")) for part in ("domain", "bus", "slot", "function")
        )
    return f"nvme:{place}/{source.get('namespace', '')}"


def _hex(text: str) -> str:
    try:
        return f"{int(text, 0):x}"
    except ValueError:
        return text


def _normal(path: str) -> str:
    """Return *path* without ``//`` and ``/.``; ``..`` stays, it may cross a symbolic link."""
    if not ("//" in path or "/." in path or path.endswith("/")) or ".." in path.split("/"):
        return path
    normal = posixpath.normpath(path)
    # POSIX lets exactly two leading slashes mean something else; Linux does not.
    return normal[1:] if normal.startswith("//") else normal

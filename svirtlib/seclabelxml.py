"""Every ``<seclabel>`` of a document with its place and line, as it is written.

Which places libvirt reads is a fact of its parser (``virDomainStorageSourceParse``,
``virDomainChrSourceDefParseXML``, ``virDomainLoaderDefParseXMLNvram``,
``virDomainSnapshotDiskDefParseXML``, ``virDomainBackupDiskDefParseXML``): the first
``<source>`` of a disk, of each typed backing store, of a mirror, a typed NVRAM or a character
device. Whether what stands there is accepted is not asked here.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, Optional

from lxml import etree

from svirtlib.rawseclabel import (
    DocumentKind,
    Place,
    RawChild,
    RawSeclabel,
    RawSource,
    SeclabelDocument,
)
from svirtlib.xmltree import line_of, parse_tree

__all__ = ["EXPECTED", "read_domain", "read_seclabels"]

#: What documents may be, for messages.
EXPECTED = (
    "a libvirt document: <domain>, <seclabel>, <domstatus>, <domainsnapshot> or <domainbackup>"
)

_CHARACTER_PLACES = {place.value: place for place in Place if place.character}

#: Where the sources of one domain stand in the order in which libvirt parses them
#: (``virDomainDefParseXML``).
_ORDER = {
    Place.NVRAM: 0,
    Place.DISK: 1,
    Place.BACKING: 1,
    Place.MIRROR: 1,
    Place.DATA: 1,
    Place.PARALLEL: 2,
    Place.SERIAL: 3,
    Place.CONSOLE: 4,
    Place.CHANNEL: 5,
    Place.SNAPSHOT: 6,
    Place.BACKUP: 6,
}

#: Guests whose boot options libvirt does not look at, so that it reads no ``<nvram>``.
_WITHOUT_LOADER = frozenset({"exe", "linux"})

#: What makes two character devices of a type one (``virDomainChrSourceDefIsEqual``).
_SAME_SOURCE = {
    "file": ("path", "append"),
    "dev": ("path",),
    "pipe": ("path",),
    "unix": ("mode", "path"),
    "tcp": ("mode", "host", "service"),
    "udp": ("mode", "host", "service"),
    "nmdm": ("master", "slave"),
    "spiceport": ("channel",),
    "dbus": ("channel",),
}


def read_seclabels(data: bytes, source: str) -> tuple[SeclabelDocument, ...]:
    """Return what a file says of seclabels: one entry for each domain, snapshot or backup.

    Args:
        data: the file's content, in any encoding that it declares.
        source: its name, for messages.

    Returns:
        Nothing for XML that describes something else, such as a network.

    Raises:
        DomainXMLError: the file is malformed, too large, or has a DOCTYPE.
    """
    return tuple(_documents(parse_tree(data, source, EXPECTED), source))


def read_domain(
    domain: etree._Element, source: str, kind: DocumentKind = DocumentKind.DOMAIN
) -> SeclabelDocument:
    """Return what a ``<domain>`` element says of seclabels."""
    identifier = domain.get("id")
    live = kind is DocumentKind.STATUS or (identifier is not None and identifier != "-1")
    found = _Reader(domain, kind).read(list(domain.iter("{*}seclabel")))
    name = domain.find("name")
    return SeclabelDocument(
        kind=kind,
        source=source,
        name=None if name is None else _text(name),
        virt_type=domain.get("type", ""),
        live=live,
        seclabels=found.own,
        sources=found.sources,
        unread=found.unread,
        line=line_of(domain),
    )


def _documents(root: etree._Element, source: str) -> Iterator[SeclabelDocument]:
    tag = root.tag
    if tag == "domain":
        yield read_domain(root, source)
    elif tag == "seclabel":
        yield SeclabelDocument(
            kind=DocumentKind.SECLABEL,
            source=source,
            seclabels=(_seclabel(root, "<seclabel>"),),
            line=line_of(root),
        )
    elif tag == "domstatus":
        for domain in root.findall("domain")[:1]:
            yield read_domain(domain, source, DocumentKind.STATUS)
    elif tag == "node":
        for domain in root.findall("domain"):
            yield read_domain(domain, source)
    elif tag in ("domainsnapshot", "domainbackup"):
        kind = DocumentKind(tag)
        inner = [child for child in root if child.tag in ("domain", "inactiveDomain")]
        within = {element for child in inner for element in child.iter("{*}seclabel")}
        seclabels = [element for element in root.iter("{*}seclabel") if element not in within]
        found = _Reader(root, kind).read(seclabels)
        yield SeclabelDocument(
            kind=kind,
            source=source,
            sources=found.sources,
            unread=found.unread,
            line=line_of(root),
        )
        for domain in inner:
            yield read_domain(domain, source, DocumentKind.SNAPSHOT)


class _Found(NamedTuple):
    """The seclabels of a document by their places."""

    own: tuple[RawSeclabel, ...] = ()
    sources: tuple[RawSource, ...] = ()
    unread: tuple[RawSeclabel, ...] = ()


class _Reader:
    """Sorts the seclabels of one domain, snapshot or backup by their places."""

    def __init__(self, root: etree._Element, kind: DocumentKind) -> None:
        self._root = root
        self._kind = kind
        self._numbers: dict[str, dict[etree._Element, int]] = {}

    def read(self, elements: list[etree._Element]) -> _Found:
        """Sort these elements, which are all of the document in its order."""
        if not elements:
            return _Found()
        own: list[RawSeclabel] = []
        unread: list[RawSeclabel] = []
        sources: dict[etree._Element, tuple[tuple[int, ...], RawSource, list[RawSeclabel]]] = {}
        for element in elements:
            parent = element.getparent()
            if element.tag != "seclabel" or parent is None:
                unread.append(_seclabel(element, self._outline(element)))
            elif parent is self._root and parent.tag in ("domain", "inactiveDomain"):
                suffix = "" if not own else f" number {len(own) + 1}"
                own.append(_seclabel(element, f"<seclabel>{suffix} of the domain"))
            else:
                if parent not in sources:
                    found = self._source(parent)
                    if found is None:
                        unread.append(_seclabel(element, self._outline(element)))
                        continue
                    sources[parent] = (*found, [])
                _, source, seclabels = sources[parent]
                suffix = "" if not seclabels else f" number {len(seclabels) + 1}"
                seclabels.append(_seclabel(element, f"<seclabel>{suffix} of {source.name}"))
        ordered = sorted(sources.values(), key=lambda entry: entry[0])
        return _Found(
            tuple(own),
            tuple(
                RawSource(
                    place=source.place,
                    name=source.name,
                    kind=source.kind,
                    seclabels=tuple(seclabels),
                    alias_of_serial=source.alias_of_serial,
                    replaced=source.replaced,
                    without_path=source.without_path,
                )
                for _, source, seclabels in ordered
            ),
            tuple(unread),
        )

    def _outline(self, element: etree._Element) -> str:
        """Return where an element stands, for messages: ``<seclabel> in devices/hostdev``."""
        tags: list[str] = []
        for ancestor in element.iterancestors():
            if ancestor is self._root:
                break
            tags.append(_short(ancestor))
        return f"<seclabel> in {'/'.join(reversed(tags)) or _short(self._root)}"

    def _source(self, element: etree._Element) -> Optional[tuple[tuple[int, ...], RawSource]]:
        """Return the place of a ``<source>``, or None if libvirt reads no seclabel there."""
        owner = element.getparent()
        if owner is None:
            return None
        if self._kind in (DocumentKind.SNAPSHOT, DocumentKind.BACKUP):
            outer = owner.getparent()
            if outer is not None and outer.tag == "disks" and outer.getparent() is self._root:
                return self._moment(element, owner)
        if element.tag != "source":
            return None
        first = owner.find("source") is element
        if owner.tag == "nvram":
            return self._nvram(element, owner)
        if not first:
            return None
        if owner.tag == "dataStore":
            return self._data_store(owner)
        if owner.tag in _CHARACTER_PLACES and self._is_device(owner):
            return self._character(element, owner)
        chain = self._chain(owner)
        if chain is None:
            return None
        key, place, name = chain
        kind = owner.get("type", "file")
        return (_ORDER[place], *key), RawSource(place, name, kind, ())

    def _moment(
        self, element: etree._Element, disk: etree._Element
    ) -> Optional[tuple[tuple[int, ...], RawSource]]:
        """Judge the place in a snapshot or backup."""
        if self._kind is DocumentKind.BACKUP:
            place = Place.BACKUP
            wanted = "scratch" if self._root.get("mode") == "pull" else "target"
            if disk.get("backup") == "no":
                return None
        else:
            place, wanted = Place.SNAPSHOT, "source"
        if element.tag != wanted or disk.find(wanted) is not element:
            return None
        number = self._number(disk)
        name = f"disk {disk.get('name') or number + 1}"
        return (_ORDER[place], number), RawSource(place, name, disk.get("type", "file"), ())

    def _nvram(
        self, element: etree._Element, nvram: etree._Element
    ) -> Optional[tuple[tuple[int, ...], RawSource]]:
        system = nvram.getparent()
        if system is None or system.tag != "os" or system.getparent() is not self._root:
            return None
        first = self._root.find("os/nvram")
        if first is None or self._root.find("os/nvram/source") is not element:
            return None
        kind = first.get("type")
        os_type = system.findtext("type")
        if kind is None or os_type in _WITHOUT_LOADER:
            return None
        return (_ORDER[Place.NVRAM],), RawSource(Place.NVRAM, "nvram", kind, ())

    def _data_store(self, store: etree._Element) -> Optional[tuple[tuple[int, ...], RawSource]]:
        outer = store.getparent()
        if outer is None:
            return None
        owner = outer.getparent() if outer.tag == "source" else outer
        chain = None if owner is None else self._chain(owner)
        if chain is None:
            return None
        key, _, name = chain
        source = RawSource(Place.DATA, f"data store of {name}", store.get("type", "file"), ())
        return (_ORDER[Place.DATA], *key, 1), source

    def _chain(self, owner: etree._Element) -> Optional[tuple[tuple[int, ...], Place, str]]:
        """Return the order, the place and the name of a link of a disk's chain.

        A link without ``type`` ends the chain: nothing below it is read
        (``virDomainDiskBackingStoreParse``).
        """
        depth = 0
        mirror = False
        element: Optional[etree._Element] = owner
        while element is not None and element.tag == "backingStore":
            outer = element.getparent()
            if element.get("type") is None or outer is None:
                return None
            if outer.find("backingStore") is not element:
                return None
            depth += 1
            element = outer
        if element is not None and element.tag == "mirror":
            outer = element.getparent()
            if element.get("type") is None or outer is None or outer.find("mirror") is not element:
                return None
            mirror = True
            element = outer
        if element is None or element.tag != "disk" or not self._is_device(element):
            return None
        number = self._number(element)
        target = element.find("target")
        name = f"disk {(target is not None and target.get('dev')) or number + 1}"
        place = Place.DISK
        if mirror:
            name, place = f"mirror of {name}", Place.MIRROR
        if depth:
            name = f"backing store {depth} of {name}"
            place = place if mirror else Place.BACKING
        return (number, int(mirror), depth), place, name

    def _character(
        self, element: etree._Element, device: etree._Element
    ) -> Optional[tuple[tuple[int, ...], RawSource]]:
        place = _CHARACTER_PLACES[_tag(device)]
        number = self._number(device)
        kind = device.get("type", "pty")
        alias = place is Place.CONSOLE and number == 0 and self._is_serial(device)
        replaced = False
        if alias:
            serial = next(self._root.iterfind("devices/serial"), None)
            replaced = serial is not None and not _same_source(serial, device)
            alias = not replaced
            if alias and serial is None:
                # libvirt makes it the first serial port.
                place = Place.SERIAL
                alias = False
        name = f"{_tag(device)} {number + 1}"
        order = _ORDER[_CHARACTER_PLACES[_tag(device)]]
        source = RawSource(
            place, name, kind, (), alias, replaced, without_path=not element.get("path")
        )
        return (order, number), source

    def _is_serial(self, console: etree._Element) -> bool:
        """Tell whether a first console is another name for the first serial port."""
        target = console.find("target")
        kind = None if target is None else target.get("type")
        return kind in (None, "none", "serial") and self._root.findtext("os/type") == "hvm"

    def _is_device(self, element: etree._Element) -> bool:
        devices = element.getparent()
        return (
            devices is not None and devices.tag == "devices" and devices.getparent() is self._root
        )

    def _number(self, device: etree._Element) -> int:
        """Return which of its kind a device is, counted from 0."""
        tag = _tag(device)
        if tag not in self._numbers:
            path = f"devices/{tag}"
            if self._kind in (DocumentKind.SNAPSHOT, DocumentKind.BACKUP):
                path = "disks/*" if self._root.find(path) is None else path
            self._numbers[tag] = {
                element: number for number, element in enumerate(self._root.iterfind(path))
            }
        return self._numbers[tag].get(device, 0)


def _same_source(one: etree._Element, other: etree._Element) -> bool:
    kind = one.get("type", "pty")
    if kind != other.get("type", "pty"):
        return False

    def facts(device: etree._Element) -> list[object]:
        source = device.find("source")
        return [None if source is None else source.get(name) for name in _SAME_SOURCE.get(kind, ())]

    return facts(one) == facts(other)


def _seclabel(element: etree._Element, path: str) -> RawSeclabel:
    return RawSeclabel(
        # libvirt asks for attributes by their local names (libxml2 xmlGetProp).
        attributes=tuple((key.rpartition("}")[2], value) for key, value in element.attrib.items()),
        children=tuple(
            RawChild(_tag(child), _text(child), line_of(child))
            for child in element.iterchildren(etree.Element)
        ),
        line=line_of(element),
        path=path,
    )


def _text(element: etree._Element) -> str:
    if len(element) == 0:
        return element.text or ""
    return "".join(element.itertext())


def _tag(element: etree._Element) -> str:
    return str(element.tag)


def _short(element: etree._Element) -> str:
    return etree.QName(element).localname

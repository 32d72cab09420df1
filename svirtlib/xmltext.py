"""Change the SELinux seclabels of a domain's XML and leave every other byte as it is.

A parser (expat) tells at which byte of the document each element begins and ends, in any
encoding that it reads: its positions count the bytes of the input, not of what it converts
them to. The new text is put between these bytes; nothing is written out from a tree, so that
comments, name spaces, quotes, the order of attributes, CDATA, line ends and the byte order mark
stay. The result is then read with another parser (libxml2, which libvirt uses) and must differ
from the original in those seclabels alone.

Documents are untrusted, as in :mod:`svirtlib.domainxml`: a DOCTYPE is refused, and with it all
entities but XML's own; size and depth are bounded.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping
from typing import Optional, Union
from xml.parsers import expat

from attr import define, field, frozen
from lxml import etree

from svirtlib.errors import DomainXMLError
from svirtlib.seclabel import SELINUX, DeviceSeclabel, Seclabel
from svirtlib.seclabeltext import format_device_seclabel, format_seclabel

__all__ = ["MAX_BYTES", "NVRAM", "set_seclabels"]

#: Largest document that is read, in bytes; the same as :data:`svirtlib.domainxml.MAX_BYTES`.
MAX_BYTES = 16 * 1024 * 1024
#: Deepest element that is read: libxml2's own limit, and so libvirt's.
_DEEPEST = 256

#: The target that stands for the UEFI variable store, which has no device name.
NVRAM = "nvram"

#: Between a name space's URI and a name; can stand in neither.
_SEPARATOR = "\n"

#: What libvirt writes after the seclabels of a domain (``virDomainDefFormatInternal``).
_AFTER_SECLABELS = frozenset({"keywrap", "launchSecurity"})
#: What libvirt writes after the seclabels of a source (``virDomainDiskSourceFormat``).
_AFTER_SOURCE_SECLABELS = frozenset({"auth", "encryption", "reservations", "privateData"})

#: Kinds of storage whose seclabel libvirt drops or leaves without effect, and why.
_NOT_LABELLED = {
    "network": "it is on the network, and libvirt drops a seclabel there",
    "nvme": "it is an NVMe device, which libvirt hands over without any file",
    "vhostuser": "it is a socket of another program, which libvirt does not label",
    "vhostvdpa": "it is a vDPA device, which libvirt does not label",
    "dir": "it is a directory, and libvirt labels none",
}


def set_seclabels(
    data: bytes,
    source: str,
    seclabel: Seclabel,
    devices: Optional[Mapping[str, DeviceSeclabel]] = None,
) -> bytes:
    """Return a domain's XML with this SELinux seclabel, all else byte for byte as it was.

    An SELinux seclabel of the domain, or one without a model (libvirt takes it for the host's
    first model), is replaced where it stands; those of other models are not touched. Without
    one the new one goes where libvirt would write it, indented like its neighbours.

    Args:
        data: a document whose root is ``<domain>``.
        source: where it came from, for messages.
        seclabel: the domain's new seclabel.
        devices: for disks, told by their target (``vda``), and for :data:`NVRAM`, the
            seclabel of the ``<source>``; overrides of others stay as they are.

    Raises:
        DomainXMLError: the document is malformed or no domain's, holds two seclabels where
            one is to be replaced, or has no such target.
    """
    devices = devices or {}
    document = _read(data, source)
    root = document.elements[0]
    if root.name != "domain":
        raise DomainXMLError(
            source,
            f"its root element is <{root.name.rpartition(_SEPARATOR)[2]}>; a seclabel can be put "
            f"into a <domain> alone",
            root.line,
        )
    edits = [_domain_edit(document, root, seclabel)]
    edits += [
        _device_edit(document, _source_of(document, root, target), target, override)
        for target, override in devices.items()
    ]
    result = _applied(data, edits)
    if len(result) > MAX_BYTES:
        raise DomainXMLError(source, f"with the seclabel over {MAX_BYTES} bytes: too large")
    _hold_same(data, result, source, devices)
    return result


@define(eq=False)
class _Element:
    """An element by the bytes that it spans."""

    name: str
    attributes: Mapping[str, str]
    line: int
    #: Where its start tag begins and ends.
    start: int
    parent: Optional[_Element]
    inside: int = 0
    #: Where its end tag begins and ends; both ``inside`` for an empty-element tag.
    close: int = 0
    end: int = 0
    #: Its start tag is an empty-element tag (``<a/>``).
    empty: bool = False
    children: list[_Element] = field(factory=list)

    def find(self, name: str) -> Iterator[_Element]:
        """Yield the children of that name."""
        return (child for child in self.children if child.name == name)


@frozen
class _Edit:
    """Bytes to put in place of those from *start* to *end*."""

    start: int
    end: int
    new: bytes


@define(eq=False)
class _Document:
    """A document with the places of its elements and tokens."""

    data: bytes
    source: str
    #: How markup and white space are written: one byte a character, or UTF-16.
    encoding: str
    elements: list[_Element] = field(factory=list)
    #: Where each token begins, ascending; and whether it is text, a comment or other markup.
    starts: list[int] = field(factory=list)
    kinds: list[str] = field(factory=list)

    def encode(self, text: str) -> bytes:
        """Return new markup as it is written in this document."""
        # What is not ASCII is written as a character reference, which every encoding can.
        return text.encode("ascii", "xmlcharrefreplace").decode("ascii").encode(self.encoding)

    def decode(self, start: int, end: int) -> str:
        """Return a piece of the document; of text only the white space is sure to be right."""
        return self.data[start:end].decode(self.encoding, "replace")

    def token(self, position: int) -> int:
        """Return the number of the token that begins at *position*."""
        return bisect_left(self.starts, position)

    def end_of(self, token: int) -> int:
        """Return where a token ends."""
        return self.starts[token + 1] if token + 1 < len(self.starts) else len(self.data)

    def margin(self, element: _Element) -> str:
        """Return the line end and the indentation before an element.

        It is empty where something else stands before it on its line.
        """
        first = number = self.token(element.start)
        while first and self.kinds[first - 1] == _TEXT:
            first -= 1
        if first == number:
            return ""
        before = self.decode(self.starts[first], element.start)
        head, newline, indentation = before.rpartition("\n")
        if not newline or indentation.strip(" \t"):
            return ""
        return f"{chr(13) if head.endswith(chr(13)) else ''}\n{indentation}"

    def unit(self, element: _Element) -> str:
        """Return by how much an element stands further in than its parent."""
        own = _indentation(self.margin(element))
        parent = "" if element.parent is None else _indentation(self.margin(element.parent))
        return own[len(parent) :] if own.startswith(parent) and own != parent else "  "

    def end_of_line(self, element: _Element) -> int:
        """Return where a comment ends that stands on the line on which an element ends."""
        end = element.end
        for number in range(self.token(element.end), len(self.starts)):
            text = self.decode(self.starts[number], self.end_of(number))
            if self.kinds[number] == _COMMENT and "\n" not in text:
                end = self.end_of(number)
            elif self.kinds[number] != _TEXT or text.strip(" \t"):
                # Something else stands there: the comment may be that one's.
                return end if text.strip(" \t\r").startswith("\n") else element.end
        return element.end


_TEXT, _COMMENT, _MARKUP = "text", "comment", "markup"


def _indentation(margin: str) -> str:
    return margin.rpartition("\n")[2]


def _read(data: bytes, source: str) -> _Document:
    """Find the bytes of all elements.

    Raises:
        DomainXMLError: the document cannot be read.
    """
    if len(data) > MAX_BYTES:
        raise DomainXMLError(source, f"too large for a domain XML (over {MAX_BYTES} bytes)")
    reader = _Reader(_Document(data, source, _encoding(data)))
    try:
        reader.run()
    except expat.ExpatError as error:
        reason = expat.errors.messages.get(error.code, str(error))
        raise DomainXMLError(source, f"malformed XML: {reason}", error.lineno) from None
    except (ValueError, LookupError) as error:
        if isinstance(error, DomainXMLError):
            raise
        raise DomainXMLError(
            source, f"its encoding cannot be edited ({error}); convert it to UTF-8"
        ) from None
    return reader.document


def _encoding(data: bytes) -> str:
    """Return a codec for markup: UTF-16, or one byte a character.

    As XML 1.0 appendix F tells them apart. What expat reads besides UTF-16 has markup as in
    ASCII; Latin-1 maps any bytes there and back.
    """
    if data.startswith((b"\xff\xfe", b"<\0")):
        return "utf-16-le"
    if data.startswith((b"\xfe\xff", b"\0<")):
        return "utf-16-be"
    return "latin-1"


class _Reader:
    """Fills a document with what expat tells."""

    def __init__(self, document: _Document) -> None:
        self.document = document
        self._open: list[_Element] = []
        #: The element whose start tag is the token before; its end is the next token's start.
        self._fresh: Optional[_Element] = None
        self._closed: Optional[_Element] = None
        self._empty_end = document.encode("/>")
        self._parser = expat.ParserCreate(namespace_separator=_SEPARATOR)
        self._parser.buffer_text = False
        self._parser.StartElementHandler = self._start
        self._parser.EndElementHandler = self._end
        self._parser.CharacterDataHandler = self._text
        self._parser.CommentHandler = self._comment
        self._parser.ProcessingInstructionHandler = self._instruction
        self._parser.StartDoctypeDeclHandler = self._doctype
        # All other tokens, or they would seem to belong to the one before.
        self._parser.DefaultHandler = self._other

    def run(self) -> None:
        """Read the whole document."""
        self._parser.Parse(self.document.data, True)
        self._settle(len(self.document.data))

    def _token(self, kind: str) -> int:
        position = self._parser.CurrentByteIndex
        self._settle(position)
        self.document.starts.append(position)
        self.document.kinds.append(kind)
        return position

    def _settle(self, position: int) -> None:
        """Take note that the token before ends at *position*."""
        if self._fresh is not None:
            self._fresh.inside = position
            self._fresh = None
        if self._closed is not None:
            self._closed.end = position
            self._closed = None

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        position = self._token(_MARKUP)
        parent = self._open[-1] if self._open else None
        if len(self._open) >= _DEEPEST:
            raise DomainXMLError(
                self.document.source,
                f"elements nested more than {_DEEPEST} deep",
                self._parser.CurrentLineNumber,
            )
        element = _Element(name, attributes, self._parser.CurrentLineNumber, position, parent)
        if parent is not None:
            parent.children.append(element)
        self.document.elements.append(element)
        self._open.append(element)
        self._fresh = element

    def _end(self, name: str) -> None:  # noqa: ARG002 - expat's signature
        element = self._open.pop()
        position = self._parser.CurrentByteIndex
        # For an empty-element tag expat reports the end at the end of the tag.
        if self._fresh is element and self.document.data.endswith(
            self._empty_end, element.start, position
        ):
            self._settle(position)
            element.empty = True
            element.close = element.end = position
        else:
            element.close = self._token(_MARKUP)
            self._closed = element

    def _text(self, text: str) -> None:  # noqa: ARG002 - expat's signature
        self._token(_TEXT)

    def _comment(self, text: str) -> None:  # noqa: ARG002 - expat's signature
        self._token(_COMMENT)

    def _instruction(self, target: str, text: str) -> None:  # noqa: ARG002 - expat's signature
        self._token(_MARKUP)

    def _other(self, text: str) -> None:  # noqa: ARG002 - expat's signature
        self._token(_MARKUP)

    def _doctype(self, *declaration: object) -> None:  # noqa: ARG002 - expat's signature
        raise DomainXMLError(
            self.document.source,
            "a DOCTYPE is not accepted; libvirt never writes one",
            self._parser.CurrentLineNumber,
        )


def _domain_edit(document: _Document, root: _Element, seclabel: Seclabel) -> _Edit:
    others = list(root.find("seclabel"))
    own = [element for element in others if _is_domain_own(element)]
    if own:
        element = _only(document, own, "the domain has")
        newline = document.margin(element)
        text = format_seclabel(seclabel, newline=newline, unit=document.unit(element))
        return _Edit(element.start, element.end, document.encode(text))
    if others:
        return _before(document, others[0], seclabel)
    devices = list(root.find("devices"))
    if devices:
        return _after(document, devices[-1], seclabel)
    usual = [
        child
        for child in root.children
        if _SEPARATOR not in child.name and child.name not in _AFTER_SECLABELS
    ]
    if usual:
        return _after(document, usual[-1], seclabel)
    return _inside(document, root, seclabel)


def _device_edit(
    document: _Document, element: _Element, target: str, seclabel: DeviceSeclabel
) -> _Edit:
    own = [child for child in element.find("seclabel") if child.attributes.get("model") == SELINUX]
    if own:
        child = _only(document, own, f"the source of {target} has")
        newline = document.margin(child)
        text = format_device_seclabel(seclabel, newline=newline, unit=document.unit(child))
        return _Edit(child.start, child.end, document.encode(text))
    later = [
        child
        for child in element.children
        if child.name == "seclabel" or child.name in _AFTER_SOURCE_SECLABELS
    ]
    if later:
        return _before(document, later[0], seclabel)
    if element.children:
        return _after(document, element.children[-1], seclabel)
    return _inside(document, element, seclabel)


def _is_domain_own(element: _Element) -> bool:
    # Without a model it is taken for that of the host's first one: Seclabel.judged.
    return element.attributes.get("model", SELINUX) == SELINUX


def _only(document: _Document, elements: list[_Element], who: str) -> _Element:
    if len(elements) > 1:
        lines = " and ".join(str(element.line) for element in elements)
        raise DomainXMLError(
            document.source,
            f"{who} {len(elements)} SELinux seclabels (lines {lines}), which libvirt refuses; "
            f"remove all but one",
            elements[1].line,
        )
    return elements[0]


def _source_of(document: _Document, root: _Element, target: str) -> _Element:
    """Return the ``<source>`` of a disk, or of the NVRAM.

    Raises:
        DomainXMLError: there is none that libvirt would label.
    """
    if target == NVRAM:
        # Without a type libvirt reads a path there and no source.
        found = [
            nvram
            for system in root.find("os")
            for nvram in system.find("nvram")
            if "type" in nvram.attributes
        ]
    else:
        disks = [disk for devices in root.find("devices") for disk in devices.find("disk")]
        found = [
            disk
            for disk in disks
            for name in disk.find("target")
            if name.attributes.get("dev") == target
        ]
        known = ", ".join(
            name.attributes.get("dev", "") for disk in disks for name in disk.find("target")
        )
        if not found:
            raise DomainXMLError(
                document.source, f"it has no disk with the target {target!a} (it has: {known})"
            )
        if len(found) > 1:
            raise DomainXMLError(
                document.source, f"{len(found)} disks have the target {target!a}", found[1].line
            )
    sources = [source for device in found[:1] for source in device.find("source")]
    if not sources:
        raise DomainXMLError(
            document.source,
            f"{target} has no <source> that could carry a seclabel",
            found[0].line if found else None,
        )
    reason = _NOT_LABELLED.get(found[0].attributes.get("type", "file"))
    if reason is not None:
        raise DomainXMLError(
            document.source, f"{target} takes no seclabel: {reason}", found[0].line
        )
    return sources[0]


def _text_of(seclabel: Union[Seclabel, DeviceSeclabel], newline: str, unit: str) -> str:
    if isinstance(seclabel, DeviceSeclabel):
        return format_device_seclabel(seclabel, newline=newline, unit=unit)
    return format_seclabel(seclabel, newline=newline, unit=unit)


def _before(
    document: _Document, element: _Element, seclabel: Union[Seclabel, DeviceSeclabel]
) -> _Edit:
    margin = document.margin(element)
    text = _text_of(seclabel, margin, document.unit(element)) + margin
    return _Edit(element.start, element.start, document.encode(text))


def _after(
    document: _Document, element: _Element, seclabel: Union[Seclabel, DeviceSeclabel]
) -> _Edit:
    margin = document.margin(element)
    text = margin + _text_of(seclabel, margin, document.unit(element))
    place = document.end_of_line(element) if margin else element.end
    return _Edit(place, place, document.encode(text))


def _inside(
    document: _Document, element: _Element, seclabel: Union[Seclabel, DeviceSeclabel]
) -> _Edit:
    """Put a seclabel into an element that has no elements inside."""
    outer = document.margin(element)
    unit = document.unit(element)
    margin = f"{outer}{unit}" if outer else ""
    text = margin + _text_of(seclabel, margin, unit)
    if element.empty:
        name = element.name
        slash = element.inside - len(document.encode("/>"))
        return _Edit(slash, element.inside, document.encode(f">{text}{outer}</{name}>"))
    if element.inside == element.close:
        text += outer
    return _Edit(element.inside, element.inside, document.encode(text))


def _applied(data: bytes, edits: list[_Edit]) -> bytes:
    pieces = []
    place = 0
    for edit in sorted(edits, key=lambda edit: edit.start):
        if edit.start < place:
            raise AssertionError("two edits overlap; nothing was written")
        pieces += [data[place : edit.start], edit.new]
        place = edit.end
    return b"".join([*pieces, data[place:]])


def _hold_same(
    before: bytes, after: bytes, source: str, devices: Mapping[str, DeviceSeclabel]
) -> None:
    """Hold that two documents differ in the given seclabels alone.

    Raises:
        AssertionError: they do not; a bug.
        DomainXMLError: libxml2 does not take the original, and so libvirt would not.
    """
    try:
        original = _without_seclabels(before, devices)
    except etree.XMLSyntaxError as error:
        raise DomainXMLError(source, f"malformed XML: {error.msg}", error.lineno) from None
    if original != _without_seclabels(after, devices):
        raise AssertionError("the edit changed more than seclabels; nothing was written")


def _without_seclabels(data: bytes, devices: Mapping[str, DeviceSeclabel]) -> bytes:
    """Return a document without the seclabels that are ours, as libxml2 understands it."""
    parser = etree.XMLParser(
        resolve_entities=False,
        no_network=True,
        load_dtd=False,
        huge_tree=False,
        strip_cdata=False,
    )
    root = etree.fromstring(data, parser)
    _strip(root, [child for child in root.findall("seclabel") if _is_own(child, SELINUX)])
    labelled = [disk for disk in root.iterfind("devices/disk") if _is_target(disk, devices)]
    if NVRAM in devices:
        labelled += root.findall("os/nvram")
    for device in labelled:
        place = device.find("source")
        if place is not None:
            _strip(place, [child for child in place.findall("seclabel") if _is_own(child, None)])
    return etree.tostring(root.getroottree(), encoding="UTF-8")


def _is_own(element: etree._Element, default: Optional[str]) -> bool:
    return element.get("model", default) == SELINUX


def _is_target(disk: etree._Element, devices: Mapping[str, DeviceSeclabel]) -> bool:
    return any(target.get("dev") in devices for target in disk.iterfind("target"))


def _strip(parent: etree._Element, elements: list[etree._Element]) -> None:
    """Remove elements, and all white space beside those that stay."""
    for element in elements:
        tail = element.tail or ""
        previous = element.getprevious()
        if previous is None:
            parent.text = (parent.text or "") + tail
        else:
            previous.tail = (previous.tail or "") + tail
        element.tail = None
        parent.remove(element)
    parent.text = "".join((parent.text or "").split()) or None
    for child in parent:
        child.tail = "".join((child.tail or "").split()) or None

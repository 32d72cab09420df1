"""``<seclabel>`` elements as a document has them, before anybody has judged them.

Values only: texts are kept as they stand, so that an invalid one can be told to the user. The
judgement is in :mod:`svirtlib.validation`, the reading of XML in :mod:`svirtlib.seclabelxml`.
"""

from __future__ import annotations

import enum
from typing import Optional

from attr import frozen

__all__ = [
    "SELINUX",
    "DocumentKind",
    "Place",
    "RawChild",
    "RawSeclabel",
    "RawSource",
    "SeclabelDocument",
]

#: The security model that this project judges; others are carried along unjudged.
SELINUX = "selinux"


class DocumentKind(enum.Enum):
    """What a document describes."""

    #: ``<domain>``, as ``virsh define`` takes it and ``virsh dumpxml`` prints it.
    DOMAIN = "domain"
    #: ``<domstatus>``: libvirt's own record of a running guest.
    STATUS = "domstatus"
    #: A ``<seclabel>`` alone.
    SECLABEL = "seclabel"
    #: ``<domainsnapshot>``: the disks' new images.
    SNAPSHOT = "domainsnapshot"
    #: ``<domainbackup>``: the targets or scratch files.
    BACKUP = "domainbackup"


class Place(enum.Enum):
    """Where a ``<source>`` with a seclabel stands; the value is the word for messages."""

    DISK = "disk"
    BACKING = "backing store"
    MIRROR = "mirror"
    DATA = "data store"
    NVRAM = "nvram"
    SERIAL = "serial"
    PARALLEL = "parallel"
    CHANNEL = "channel"
    CONSOLE = "console"
    SNAPSHOT = "snapshot"
    BACKUP = "backup"

    @property
    def character(self) -> bool:
        """Whether it is a character device."""
        return self in (Place.SERIAL, Place.PARALLEL, Place.CHANNEL, Place.CONSOLE)


@frozen
class RawChild:
    """A child element of a seclabel.

    Attributes:
        name: its tag; with its namespace where it has one.
        text: all text in it, untrimmed.
        line: its line, counted from 1.
    """

    name: str
    text: str
    line: Optional[int] = None


@frozen
class RawSeclabel:
    """One ``<seclabel>`` as it is written.

    Attributes:
        attributes: local names and values, in the document's order.
        children: its child elements, in the document's order.
        line: its line, counted from 1.
        path: where it is, for messages: ``/domain/seclabel[2]``.
    """

    attributes: tuple[tuple[str, str], ...] = ()
    children: tuple[RawChild, ...] = ()
    line: Optional[int] = None
    path: str = ""

    def get(self, name: str) -> Optional[str]:
        """Return an attribute's value, or None where it is absent."""
        for key, value in self.attributes:
            if key == name:
                return value
        return None

    def text(self, name: str) -> Optional[str]:
        """Return the text of the first child *name*, or None where it is absent or empty.

        libvirt makes no difference between the two (``virXPathString``).
        """
        for child in self.children:
            if child.name == name:
                return child.text or None
        return None

    def line_of(self, name: str) -> Optional[int]:
        """Return the line of the first child *name*, else the element's own."""
        for child in self.children:
            if child.name == name:
                return child.line
        return self.line


@frozen
class RawSource:
    """A place outside ``/domain/seclabel`` where libvirt reads seclabels, which has some.

    Attributes:
        place: what it is.
        name: which one it is, for messages: ``disk vda``.
        kind: its ``type``: ``file``, ``block``, ``network``, ``unix``, ...
        seclabels: in the document's order; never empty.
        alias_of_serial: a first ``<console>`` that libvirt takes for the first serial port.
        replaced: such a console, with another source than that port: libvirt forgets it.
        without_path: a pseudo-terminal or socket whose path libvirt makes up.
    """

    place: Place
    name: str
    kind: str
    seclabels: tuple[RawSeclabel, ...]
    alias_of_serial: bool = False
    replaced: bool = False
    without_path: bool = False


@frozen
class SeclabelDocument:
    """All seclabels of one domain, snapshot or backup.

    Attributes:
        kind: what it describes.
        source: where it came from, for messages.
        name: the domain's name, or None.
        virt_type: the domain's ``type``, or an empty text.
        live: it shows a running guest, with the labels that libvirt has generated.
        seclabels: those of the domain.
        sources: those of devices, in the order in which libvirt parses them.
        unread: those that stand where libvirt reads none.
        line: line of the root, counted from 1.
    """

    kind: DocumentKind
    source: str
    name: Optional[str] = None
    virt_type: str = ""
    live: bool = False
    seclabels: tuple[RawSeclabel, ...] = ()
    sources: tuple[RawSource, ...] = ()
    unread: tuple[RawSeclabel, ...] = ()
    line: Optional[int] = None

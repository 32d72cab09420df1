"""The inventory of a host as values: what was found, and what could not be looked at.

Nothing here reads the system; :func:`svirtlib.inventory.take_inventory` fills these values
and the checks read them. A fact that could not be had is an :class:`Unreadable` in the
inventory, so that it reaches the report and the exit status.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Optional

from attr import frozen

from svirtlib.seclabel import DeviceSeclabel, Seclabel

# Values that most inventories have none of; to make their classes takes longer than all else
# that the start of a check does.
if TYPE_CHECKING:
    from svirtlib.devices import Devices
    from svirtlib.policyfacts import PolicyFacts
    from svirtlib.problems import Problem

__all__ = [
    "BooleanState",
    "FileLabel",
    "Guest",
    "Host",
    "Image",
    "ImageKind",
    "ImageMode",
    "ImageUse",
    "Inventory",
    "Mode",
    "PathRule",
    "Process",
    "Unreadable",
]


class ImageKind(enum.Enum):
    """What an image is stored in: libvirt's disk types."""

    FILE = "file"
    BLOCK = "block"
    DIR = "dir"
    VOLUME = "volume"
    NETWORK = "network"
    NVME = "nvme"
    VHOST_USER = "vhostuser"
    VHOST_VDPA = "vhostvdpa"


class ImageMode(enum.Enum):
    """How the guest may use an image, which decides the label that libvirt gives it."""

    #: The guest's own; gets the image label with the guest's categories.
    PRIVATE = "private"
    #: ``<shareable/>``; gets the image context without categories.
    SHAREABLE = "shareable"
    #: ``<readonly/>``, CD-ROM, kernel, initrd and all below the top of a backing chain; gets
    #: the content context without categories.
    READONLY = "readonly"


class ImageUse(enum.Enum):
    """What the guest uses an image for."""

    DISK = "disk"
    BACKING = "backing"
    MIRROR = "mirror"
    NVRAM = "nvram"
    KERNEL = "kernel"
    INITRD = "initrd"
    DTB = "dtb"
    ACPI_TABLE = "acpi"


@frozen
class Image:
    """One file, block device or other storage that a guest uses.

    Attributes:
        use: what for.
        kind: what it is stored in.
        mode: how the guest may use it.
        path: absolute path on the host, or None where it has none (network, NVMe).
        name: how to call it in a message: the path, or ``pool/volume``, ``rbd:pool/image``.
        target: the guest's device name (``vda``), or what else tells it in the guest.
        seclabel: the SELinux override that applies to it, own or inherited from the top of
            its chain.
        format: ``raw``, ``qcow2``, ... as the XML states it, or None.
        chain_known: the XML lists what lies below (an empty ``<backingStore/>`` ends a chain).
        shared_on_purpose: several guests may hold it though it is writable (transient disks
            that share their backing file).
        line: line in the document, counted from 1.
    """

    use: ImageUse
    kind: ImageKind
    mode: ImageMode
    path: Optional[str]
    name: str
    target: str
    seclabel: Optional[DeviceSeclabel] = None
    format: Optional[str] = None
    chain_known: bool = True
    shared_on_purpose: bool = False
    line: Optional[int] = None


@frozen
class Process:
    """A process that runs a guest.

    Attributes:
        pid: its number, or None where only libvirt was asked for its context.
        context: its context as the kernel states it.
        source: how it was learnt.
    """

    pid: Optional[int]
    context: str
    source: str


@frozen
class Guest:
    """A guest as one XML document states it, with its process where that was looked at.

    Attributes:
        name: libvirt's name for it.
        uuid: its UUID in lower case, or None where the document has none.
        running: whether it runs (the document carries an ``id``).
        virt_type: ``kvm``, ``qemu``, ``lxc``, ``test``, ...
        source: where the document came from.
        seclabels: of all security models, in the document's order.
        images: in the document's order, a chain from its top down.
        process: its process, or None where none was looked for or found.
        known_to_libvirt: False for a QEMU process that no libvirt guest accounts for.
        seclabel_problems: what libvirt refuses or ignores of its seclabels, whatever the host's
            models and version are.
        devices: its consoles and other devices, or None where nobody asked for them.
    """

    name: str
    uuid: Optional[str]
    running: bool
    virt_type: str
    source: str
    seclabels: tuple[Seclabel, ...] = ()
    images: tuple[Image, ...] = ()
    process: Optional[Process] = None
    known_to_libvirt: bool = True
    seclabel_problems: tuple[Problem, ...] = ()
    devices: Optional[Devices] = None

    @property
    def seclabel(self) -> Optional[Seclabel]:
        """The SELinux seclabel, or None where the document has none."""
        for seclabel in self.seclabels:
            if seclabel.judged:
                return seclabel
        return None


@frozen
class PathRule:
    """The file-context rule that decides which label a relabel sets at a path.

    Attributes:
        context: what it gives.
        pattern: the paths that it is for.
        place: where it stands.
        shadowed: pattern and place of a weaker rule that would give the path a type for
            storage of guests, where this one does not.
    """

    context: str
    pattern: str
    place: str
    shadowed: Optional[str] = None


@frozen
class BooleanState:
    """A boolean of the policy; *active* is None where the policy has none of this name."""

    name: str
    active: Optional[bool]


@frozen
class FileLabel:
    """What the host says of one image.

    Attributes:
        path: as the guest's XML names it.
        identity: the same for every name of one file or device.
        context: text of ``security.selinux``, or None where it has none.
        labelable: False where the file system carries no labels of files (NFS, a
            ``context=`` mount); its files have one label that cannot be changed.
        references: libvirt's count of guests that hold it (``trusted.libvirt.security.
            ref_selinux``), or None where it keeps none.
        remembered: the context that libvirt will put back, or None.
        rule: which file-context rule is for it; None where none is, or none was asked.
        filesystem: type of the file system that it lies on (``ext4``, ``nfs4``), or None where
            that was not looked at.
        seen: False where nobody looked at the file, so that only what is known of its path is
            said.
    """

    path: str
    identity: str
    context: Optional[str]
    labelable: bool = True
    references: Optional[int] = None
    remembered: Optional[str] = None
    rule: Optional[PathRule] = None
    filesystem: Optional[str] = None
    seen: bool = True


@frozen
class Unreadable:
    """Something that was to be looked at and could not be.

    Attributes:
        what: what it is: a guest, a file, a process.
        reason: why, and what to do about it.
        guest: name of the guest that stays unjudged for it, if it is one.
    """

    what: str
    reason: str
    guest: Optional[str] = None


class Mode(enum.Enum):
    """What SELinux does on a host."""

    ENFORCING = "enforcing"
    PERMISSIVE = "permissive"
    DISABLED = "disabled"


@frozen
class Host:
    """The host that the guests run on.

    Attributes:
        name: its name, or None where only documents were read.
        mode: what SELinux does there, or None where that is not known.
        policy: name of the policy (``default``, ``targeted``), or None.
        secmodels: libvirt's security models there, first first; empty where not known.
        dynamic_range: text of the range from which libvirt draws dynamic levels, or None
            where libvirt was not asked.
        image_context: first line of ``virtual_image_context``: what a shareable image gets.
        content_context: its second line: what a read-only image gets.
    """

    name: Optional[str] = None
    mode: Optional[Mode] = None
    policy: Optional[str] = None
    secmodels: tuple[str, ...] = ()
    dynamic_range: Optional[str] = None
    image_context: str = "system_u:object_r:svirt_image_t:s0"
    content_context: str = "system_u:object_r:virt_content_t:s0"


@frozen
class Inventory:
    """All that was found.

    Attributes:
        host: the host; without a name where only documents were read.
        guests: sorted by name.
        files: one for each path that was looked at, sorted by path.
        unreadable: what could not be looked at.
        notes: what happened on the way that leaves nothing unknown.
        host_known: the host itself was looked at.
        files_known: files were looked at.
        processes_known: processes were looked at.
        policy: what a policy says of all that, or None where none was asked.
        booleans: those that the file systems of the images call for, as far as they are known.
    """

    host: Host = Host()
    guests: tuple[Guest, ...] = ()
    files: tuple[FileLabel, ...] = ()
    unreadable: tuple[Unreadable, ...] = ()
    notes: tuple[str, ...] = ()
    host_known: bool = False
    files_known: bool = False
    processes_known: bool = False
    policy: Optional[PolicyFacts] = None
    booleans: tuple[BooleanState, ...] = ()

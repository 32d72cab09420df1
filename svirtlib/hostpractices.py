"""Facts about how a host is set up beside its consoles, as values."""

from __future__ import annotations

import re
from typing import Optional

from attr import frozen

from svirtlib.booleans import Boolean

__all__ = [
    "BlockDevice",
    "LvmConfig",
    "MountEntry",
    "OpenPorts",
    "PciDevice",
    "PortDenied",
    "PortUse",
    "Practices",
    "SelinuxConfig",
    "Setting",
    "SudoCommand",
    "ViewerFile",
    "VirtualNetwork",
    "classify_by_name",
]


@frozen
class BlockDevice:
    """A device that a guest has as a disk.

    Attributes:
        path: as the guest's XML names it.
        kind: ``disk``, ``partition``, ``lv``, ``multipath``, ``array``, ``loop``, ``crypt`` or
            ``unknown``.
        by_name: only its name was looked at.
        used: what the host itself does with it or a part of it, or None.
    """

    path: str
    kind: str
    by_name: bool
    used: Optional[str] = None


_WHOLE = re.compile(r"/dev/(?:(?:sd|vd|xvd|hd)[a-z]+|nvme\d+n\d+|mmcblk\d+|dasd[a-z]+|pmem\d+)")
_PART = re.compile(
    r"/dev/(?:(?:sd|vd|xvd|hd|dasd)[a-z]+\d+|(?:nvme\d+n\d+|mmcblk\d+|pmem\d+|md\d+|loop\d+)p\d+)"
)
#: Folders of ``/dev`` that are no volume group.
_NO_GROUP = frozenset(
    {"disk", "mapper", "md", "loop", "mtd", "shm", "pts", "bus", "input", "net", "vfio", "rbd"}
)


def classify_by_name(path: str) -> str:
    """Return the kind of a block device by its name alone, ``unknown`` where that tells none."""
    if _WHOLE.fullmatch(path):
        return "disk"
    if _PART.fullmatch(path):
        return "partition"
    parts = path.split("/")
    if len(parts) > 4 and parts[2] == "disk":
        folder, name = parts[3], parts[-1]
        if re.search(r"-part\d+$", name) or folder in ("by-partuuid", "by-partlabel"):
            return "partition"
        if name.startswith(("dm-name-", "dm-uuid-LVM-")):
            return "lv"
        if name.startswith(("dm-uuid-mpath-", "wwn-", "scsi-", "ata-", "nvme-", "virtio-")):
            return "disk"
        return "disk" if folder in ("by-path", "by-id") else "unknown"
    if len(parts) == 4 and parts[2] == "mapper":
        name = parts[3]
        if re.fullmatch(r"mpath[a-z]+", name):
            return "multipath"
        if re.fullmatch(r"mpath[a-z]+-?p?(?:art)?\d+", name):
            return "partition"
        if name.startswith(("luks-", "crypt")):
            return "crypt"
        return "lv" if "-" in name.replace("--", "") else "unknown"
    if re.fullmatch(r"/dev/md(?:\d+|/[^/]+)", path):
        return "array"
    if re.fullmatch(r"/dev/loop\d+", path):
        return "loop"
    if len(parts) == 4 and parts[2] not in _NO_GROUP:
        return "lv"
    return "unknown"


@frozen
class MountEntry:
    """What is mounted, or to be mounted.

    Attributes:
        source: the device, or ``LABEL=...``, or ``server:/path``.
        target: where.
        kind: type of the file system.
        options: as written.
        origin: file and line that say so.
    """

    source: str
    target: str
    kind: str
    options: str
    origin: str


@frozen
class LvmConfig:
    """What LVM on the host may scan.

    Attributes:
        path: its configuration.
        patterns: of ``global_filter``, in order; None where it is not set.
        devices_file: a devices file is in use.
    """

    path: str
    patterns: Optional[tuple[str, ...]] = None
    devices_file: bool = False

    def accepts(self, path: str) -> bool:
        """Tell whether LVM would scan a device: the first pattern that matches decides."""
        for pattern in self.patterns or ():
            if len(pattern) < 3 or pattern[0] not in "ar":
                continue
            expression = pattern[2:-1]
            try:
                found = re.search(expression, path)
            except re.error:
                continue
            if found:
                return pattern[0] == "a"
        return True


@frozen
class PciDevice:
    """A PCI device of the host.

    Attributes:
        address: as sysfs writes it.
        kind: ``virtual`` or ``physical`` function, ``plain``, or ``absent``.
        functions: how many virtual functions it can have.
    """

    address: str
    kind: str
    functions: int = 0


@frozen
class Setting:
    """One value with the place that says so.

    Attributes:
        value: as written.
        origin: file, and line where it has one.
    """

    value: str
    origin: str


@frozen
class SelinuxConfig:
    """What SELinux is to do at the next boot.

    Attributes:
        mode: ``SELINUX`` of its configuration, or None where it does not say.
        origin: the file, and the line.
        switched_off: the kernel's command line that switches it off or to permissive, or None.
    """

    mode: Optional[str]
    origin: str
    switched_off: Optional[Setting] = None


@frozen
class VirtualNetwork:
    """A network of libvirt.

    Attributes:
        name: its name.
        forward: ``nat``, ``route``, ``open``, ``bridge``, ...; None for an isolated one.
    """

    name: str
    forward: Optional[str]


@frozen
class ViewerFile:
    """Who may execute the viewer of consoles.

    Attributes:
        path: the program.
        mode: its permission bits.
        uid: number of its owner.
        gid: number of its group.
    """

    path: str
    mode: int
    uid: int
    gid: int


@frozen
class SudoCommand:
    """A command that sudo lets users start.

    Attributes:
        value: the command with its arguments, as sudoers has it.
        origin: the file.
        users: who may start it; groups begin with ``%``.
        runas: as whom, without a word about it root; empty: each as himself.
        groups: with which groups.
    """

    value: str
    origin: str
    users: tuple[str, ...]
    runas: tuple[str, ...]
    groups: tuple[str, ...] = ()

    @property
    def program(self) -> str:
        """The command without its arguments."""
        return self.value.partition(" ")[0]

    @property
    def starts_viewer(self) -> bool:
        """Whether it is a viewer of consoles."""
        return self.program.rpartition("/")[2] in ("remote-viewer", "virt-viewer", "spicy")


@frozen
class PortUse:
    """TCP ports that QEMU binds.

    Attributes:
        domain: type of the process.
        low: the first port.
        high: the last one.
        what: what for.
        guests: names of the guests; empty: any of them.
    """

    domain: str
    low: int
    high: int
    what: str
    guests: tuple[str, ...] = ()


@frozen
class PortDenied:
    """A port that QEMU would bind and that the policy keeps from it.

    Attributes:
        use: what it would be for.
        port: the first such port.
        type: its type.
    """

    use: PortUse
    port: int
    type: str


@frozen
class OpenPorts:
    """TCP ports that the firewall opens, by its rules.

    Attributes:
        origin: where the rules are from.
        opened: first and last port of each range that every address reaches over any interface.
        undecided: those of which the rules do not tell it.
        reason: why not.
    """

    origin: str
    opened: tuple[tuple[int, int], ...] = ()
    undecided: tuple[tuple[int, int], ...] = ()
    reason: str = ""


@frozen
class Practices:
    """All of one host. None stands for what was not there to be looked at.

    Attributes:
        blocks: the devices that guests have as disks.
        mounts: what is mounted at boot, and on a running host now.
        kernel: the kernel's command line, and what it will be.
        lvm: what LVM may scan, or None where it is not installed.
        pci: the devices that guests drive; None where sysfs was not there.
        unsafe_interrupts: what lets VFIO take devices without interrupt remapping, or None.
        selinux: what SELinux will do, or None without any configuration of it.
        booleans: the policy's booleans; None where no policy could be asked.
        ports_denied: ports that the policy keeps from QEMU; None where no policy could be asked.
        units: names of systemd units that start at boot; None where that is not known.
        listen_option: what starts libvirtd with ``--listen``, or None.
        socket_mode: mode of libvirt's read-write socket where a unit sets one, or None.
        polkit_open: files that let everybody manage guests.
        networks: libvirt's networks; None where none could be looked at.
        forwarding: whether the kernel forwards IPv4, with the place that says so.
        root_login: what sshd says of ``PermitRootLogin``, or None where that is not known.
        input_filtered: packets that come in meet a firewall that drops what it does not know;
            None where the rules could not be read.
        open_ports: the ports that the same rules open to everybody; None likewise.
        owner_rules: nftables of the machine with the viewers, as nft writes them in JSON; None
            where there are none to look at, or no map.
        owner_rules_origin: where these are.
        sudo: commands that sudo lets users start, with the file; None where not looked at.
            Without a map, and without a line about viewers, there are none.
        viewer: who may execute the viewer, or None where there is none.
        listening: TCP ports that are open to other hosts, with their addresses; None where not
            looked at.
    """

    blocks: tuple[BlockDevice, ...] = ()
    mounts: tuple[MountEntry, ...] = ()
    kernel: tuple[Setting, ...] = ()
    lvm: Optional[LvmConfig] = None
    pci: Optional[tuple[PciDevice, ...]] = None
    unsafe_interrupts: Optional[Setting] = None
    selinux: Optional[SelinuxConfig] = None
    booleans: Optional[tuple[Boolean, ...]] = None
    ports_denied: Optional[tuple[PortDenied, ...]] = None
    units: Optional[frozenset[str]] = None
    listen_option: Optional[Setting] = None
    socket_mode: Optional[Setting] = None
    polkit_open: tuple[str, ...] = ()
    networks: Optional[tuple[VirtualNetwork, ...]] = None
    forwarding: Optional[Setting] = None
    root_login: Optional[Setting] = None
    input_filtered: Optional[bool] = None
    open_ports: Optional[OpenPorts] = None
    owner_rules: Optional[str] = None
    owner_rules_origin: str = ""
    sudo: Optional[tuple[SudoCommand, ...]] = None
    viewer: Optional[ViewerFile] = None
    listening: Optional[tuple[tuple[str, int], ...]] = None

"""What file systems make of labels: which carry none, and what to do instead.

The source is the kernel's ``selinux_sb_show_options`` and the policies' ``fs_use`` rules.
"""

from __future__ import annotations

import shlex
from typing import Optional

from attr import frozen

from svirtlib.storagetypes import type_of

__all__ = ["FileSystemFacts", "advice_for", "boolean_for"]


@frozen
class FileSystemFacts:
    """What one mount says of labels.

    Attributes:
        mount_point: where it is mounted.
        type: its type, such as ``ext4`` or ``fuse.sshfs``.
        options: its options and its super block's.
        selinux: whether SELinux runs, so that the kernel tells which mounts carry labels.
        source: what is mounted there.
        refuses: it said so itself that it has no labels of files.
    """

    mount_point: str
    type: str
    options: frozenset[str]
    selinux: bool
    source: str = ""
    refuses: bool = False

    @property
    def fixed_context(self) -> Optional[str]:
        """The one context of all its files, if it was mounted with ``context=``."""
        for option in self.options:
            name, _, value = option.partition("=")
            if name == "context":
                return value.strip('"')
        return None

    @property
    def labels(self) -> bool:
        """Whether each file has a label of its own there."""
        if self.fixed_context is not None or self.refuses:
            return False
        if self.selinux:
            # The kernel marks mounts on which labels can be changed (selinux_sb_show_options).
            return "seclabel" in self.options
        return _family(self.type) not in _WITHOUT_LABELS

    @property
    def shared(self) -> bool:
        """Whether other hosts may use its files."""
        return _family(self.type) in _SHARED


_NETWORK = {
    "nfs": "virt_use_nfs",
    "nfs4": "virt_use_nfs",
    "cifs": "virt_use_samba",
    "smb3": "virt_use_samba",
    "fuse": "virt_use_fusefs",
    "fuseblk": "virt_use_fusefs",
    "glusterfs": "virt_use_fusefs",
}

_FOREIGN = frozenset(
    ["vfat", "msdos", "exfat", "ntfs", "ntfs3", "iso9660", "udf", "hfs", "hfsplus", "squashfs"]
)

_WITHOUT_LABELS = frozenset(_NETWORK) | _FOREIGN | frozenset({"proc", "sysfs", "9p", "virtiofs"})

_SHARED = frozenset(
    [
        "nfs",
        "nfs4",
        "cifs",
        "smb3",
        "fuse",
        "glusterfs",
        "ceph",
        "gfs2",
        "ocfs2",
        "lustre",
        "gpfs",
        "9p",
        "virtiofs",
        "afs",
    ]
)


def _family(type: str) -> str:
    return type.split(".", 1)[0]


def advice_for(facts: FileSystemFacts, context: str) -> Optional[str]:
    """Return what to do instead of labelling files there, or None where they carry labels."""
    if facts.labels:
        return None
    if facts.fixed_context is not None:
        text = f"{facts.mount_point} is mounted with context={facts.fixed_context}, the one label "
        text += "of all its files"
        if type_of(facts.fixed_context) == type_of(context):
            return f"{text}; that is the type that is wanted: nothing is to be done"
        return (
            f"{text}; mount it with -o {shlex.quote(f'context={_quoted(context)}')} instead, or "
            f"without context= if it carries labels"
        )
    family = _family(facts.type)
    mount = f"-o {shlex.quote(f'context={_quoted(context)}')}"
    boolean = _NETWORK.get(family)
    text = f"{facts.mount_point} ({facts.type}) carries no labels of files"
    if boolean is not None:
        more = ""
        if family in ("nfs", "nfs4"):
            more = (
                "; NFS 4.2 carries labels where the server exports with security_label and the "
                "client mounts with vers=4.2"
            )
        return (
            f"{text}; let guests use it all the same with 'setsebool -P {boolean} on', or mount it "
            f"with {mount}{more}. Either way all guests reach all images there"
        )
    return f"{text}; mount it with {mount}: all guests then reach all images there"


def _quoted(context: str) -> str:
    return f'"{context}"' if "," in context else context


def boolean_for(filesystem: str) -> Optional[str]:
    """Return the boolean that lets guests use images on a type of file system, or None."""
    return _NETWORK.get(_family(filesystem))

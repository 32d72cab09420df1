"""Domain XML as libvirt writes it, for tests: live and inactive, with every kind of disk.

    guest("web", "s0:c1,c2")                         what "virsh dumpxml web" prints: running
    guest("web", "s0:c1,c2", how="static", live=False)      its definition
    guest("web", disks=[disk("/img/base.qcow2", readonly=True)])

Functions return text. What libvirt derives (the imagelabel, the dac seclabel beside SELinux's,
an empty ``<backingStore/>`` at the end of a chain) is derived here too; what a test passes
itself stands as it is, however wrong.
"""

from __future__ import annotations

import uuid
import zlib
from collections.abc import Sequence
from typing import Optional
from xml.sax.saxutils import escape, quoteattr

__all__ = [
    "below",
    "context",
    "device_label",
    "disk",
    "domain",
    "guest",
    "image_context",
    "mirror",
    "nvram",
    "seclabel",
    "source",
    "uuid_of",
]

IMAGES = "/var/lib/libvirt/images"

DAC = """\
  <seclabel type='dynamic' model='dac' relabel='yes'>
    <label>+64055:+64055</label>
    <imagelabel>+64055:+64055</imagelabel>
  </seclabel>
"""


def context(level: str, type_: str = "svirt_t") -> str:
    """The context of a guest's process."""
    return f"system_u:system_r:{type_}:{level}"


def image_context(level: str, type_: str = "svirt_image_t") -> str:
    """The context of a guest's image."""
    return f"system_u:object_r:{type_}:{level}"


def uuid_of(name: str) -> str:
    """The UUID that every document about this guest has."""
    return str(uuid.uuid5(uuid.NAMESPACE_DNS, name))


def seclabel(
    type_: Optional[str] = "dynamic",
    model: Optional[str] = "selinux",
    *,
    relabel: Optional[str] = None,
    label: Optional[str] = None,
    imagelabel: Optional[str] = None,
    baselabel: Optional[str] = None,
) -> str:
    """A ``/domain/seclabel``; None leaves an attribute or element out."""
    head = _tag("seclabel", type=type_, model=model, relabel=relabel)
    inside = "".join(
        f"    <{name}>{escape(text)}</{name}>\n"
        for name, text in (("label", label), ("imagelabel", imagelabel), ("baselabel", baselabel))
        if text is not None
    )
    return f"  {head}\n{inside}  </seclabel>\n"


def device_label(
    label: Optional[str] = None, *, model: Optional[str] = "selinux", relabel: Optional[str] = None
) -> str:
    """A ``<source><seclabel>``."""
    inside = "" if label is None else f"<label>{escape(label)}</label>"
    return f"{_tag('seclabel', model=model, relabel=relabel)}{inside}</seclabel>"


def source(where: str, kind: str = "file", seclabels: Sequence[str] = ()) -> str:
    """A ``<source>`` of any kind of disk; a volume is ``pool/volume``."""
    inside = "".join(seclabels)
    if kind == "file":
        head = _tag("source", file=where, index="1")
    elif kind in ("block", "vhostvdpa"):
        head = _tag("source", dev=where, index="1")
    elif kind == "dir":
        head = _tag("source", dir=where)
    elif kind == "volume":
        pool, _, volume = where.partition("/")
        head = _tag("source", pool=pool, volume=volume)
    elif kind == "network":
        head = _tag("source", protocol="rbd", name=where)
        inside += "<host name='ceph1' port='6789'/>"
    elif kind == "nvme":
        head = _tag("source", type="pci", managed="yes", namespace=where)
        inside += "<address domain='0x0000' bus='0x01' slot='0x00' function='0x0'/>"
    elif kind == "vhostuser":
        head = _tag("source", type="unix", path=where)
    else:
        raise ValueError(kind)
    return f"{head}{inside}</source>"


def below(
    where: str,
    *,
    kind: str = "file",
    format_: str = "qcow2",
    chain: str = "<backingStore/>",
    seclabels: Sequence[str] = (),
) -> str:
    """A ``<backingStore>``; *chain* is what lies below it, again by :func:`below`."""
    return (
        f"<backingStore type='{kind}' index='2'><format type='{format_}'/>"
        f"{source(where, kind, seclabels)}{chain}</backingStore>"
    )


def mirror(where: str, *, kind: str = "file", job: str = "copy") -> str:
    """A ``<mirror>``: the copy that a block job writes."""
    return (
        f"<mirror type='{kind}' job='{job}' ready='yes'><format type='qcow2'/>"
        f"{source(where, kind)}<backingStore/></mirror>"
    )


def disk(
    where: str,
    *,
    kind: str = "file",
    device: str = "disk",
    target: str = "vda",
    format_: str = "qcow2",
    readonly: bool = False,
    shareable: bool = False,
    transient: Optional[str] = None,
    chain: Optional[str] = "<backingStore/>",
    seclabels: Sequence[str] = (),
    more: str = "",
) -> str:
    """A ``<disk>``.

    *transient* is the value of shareBacking. *chain* is what lies below the image, None as in
    the XML of a guest that does not run. An empty *where* is a drive without a medium.
    """
    flags = "".join(
        f"<{name}/>" for name, on in (("readonly", readonly), ("shareable", shareable)) if on
    )
    if transient is not None:
        flags += f"<transient shareBacking='{transient}'/>"
    return (
        f"    <disk type='{kind}' device='{device}'>\n"
        f"      <driver name='qemu' type='{format_}'/>\n"
        f"      {source(where, kind, seclabels) if where else ''}{chain or ''}\n"
        f"      <target dev='{target}' bus='virtio'/>{flags}{more}\n"
        f"    </disk>\n"
    )


def nvram(where: str, *, kind: Optional[str] = None, seclabels: Sequence[str] = ()) -> str:
    """An ``<nvram>`` in the form up to libvirt 8.4, or with *kind* in the form since 8.5."""
    if kind is None:
        return f"<nvram template='/usr/share/OVMF/OVMF_VARS.fd'>{escape(where)}</nvram>"
    return f"<nvram type='{kind}'>{source(where, kind, seclabels)}</nvram>"


def guest(
    name: str,
    level: str = "s0:c1,c2",
    *,
    how: str = "dynamic",
    live: bool = True,
    type_: str = "svirt_t",
    relabel: bool = True,
    imagelabel: Optional[str] = None,
    disks: Optional[Sequence[str]] = None,
    boot: str = "",
    virt_type: str = "kvm",
) -> str:
    """The document of a guest that libvirt labels with *level*, with one disk of its own.

    *how* is the type of its seclabel. *imagelabel* is a context that the images have instead
    of the one that follows from the level.
    """
    label = context(level, type_)
    image = imagelabel or image_context(level)
    if how == "none":
        seclabels = seclabel("none", relabel=None if live else "no")
    elif how == "dynamic" and not live:
        seclabels = ""
    else:
        seclabels = seclabel(
            how,
            relabel="yes" if relabel else "no",
            label=label,
            imagelabel=image if live and relabel else None,
        )
    if disks is None:
        disks = [disk(f"{IMAGES}/{name}.qcow2", chain="<backingStore/>" if live else None)]
    return domain(
        name,
        seclabels + (DAC if live else ""),
        live=live,
        disks=disks,
        boot=boot,
        virt_type=virt_type,
    )


def domain(
    name: str,
    seclabels: str = "",
    *,
    live: bool = True,
    disks: Sequence[str] = (),
    boot: str = "",
    virt_type: str = "kvm",
    identifier: Optional[str] = None,
) -> str:
    """A whole document. *boot* goes into ``<os>``: kernel, initrd, nvram."""
    number = str(zlib.crc32(name.encode("utf-8")) % 9999 + 1)
    return f"""\
{_tag("domain", type=virt_type, id=number if live else None)}
  <name>{escape(name, {chr(10): "&#10;", chr(9): "&#9;", chr(13): "&#13;"})}</name>
  <uuid>{identifier or uuid_of(name)}</uuid>
  <memory unit='KiB'>1048576</memory>
  <currentMemory unit='KiB'>1048576</currentMemory>
  <vcpu placement='static'>1</vcpu>
  <os>
    <type arch='x86_64' machine='pc-q35-7.2'>hvm</type>
    {boot}
    <boot dev='hd'/>
  </os>
  <features>
    <acpi/>
  </features>
  <clock offset='utc'/>
  <on_poweroff>destroy</on_poweroff>
  <on_reboot>restart</on_reboot>
  <on_crash>destroy</on_crash>
  <devices>
    <emulator>/usr/bin/qemu-system-x86_64</emulator>
{"".join(disks)}    <controller type='pci' index='0' model='pcie-root'/>
    <interface type='network'>
      <mac address='52:54:00:00:00:01'/>
      <source network='default'/>
      <model type='virtio'/>
    </interface>
    <console type='pty'>
      <target type='serial' port='0'/>
    </console>
    <memballoon model='virtio'/>
  </devices>
{seclabels}</domain>
"""


def _tag(name: str, /, **attributes: Optional[str]) -> str:
    """A start tag; attributes that are None are left out."""
    written = "".join(
        f" {key}={quoteattr(value)}" for key, value in attributes.items() if value is not None
    )
    return f"<{name}{written}>"

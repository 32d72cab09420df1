"""Speed of validate: typical domains a second, and how time grows with a domain's disks.

Peers are lxml, which parses the document and does no more, and libvirt's test driver, which
defines the domain.
"""

from __future__ import annotations

import statistics
import sys
import time

from harness import Bench

from svirtlib.seclabelxml import read_seclabels
from svirtlib.validation import Target, validate

#: Domains a second on one core.
GOAL = 2000
#: How much longer a disk may take among a thousand than among ten.
SLOPE = 1.5
TARGET = Target(version=(9, 0))


def name(number: int) -> str:
    """Return a disk's name: vda, vdb, ..., vdaa, ..."""
    letters = ""
    while number >= 0:
        number, letter = divmod(number, 26)
        letters = chr(ord("a") + letter) + letters
        number -= 1
    return f"vd{letters}"


def domain(disks: int) -> str:
    """A domain as virt-install makes it, with overrides on every other disk."""
    parts = []
    for number in range(disks):
        override = "<seclabel model='selinux' relabel='no'/>" if number % 2 else ""
        parts.append(
            f"""    <disk type='file' device='disk'>
      <driver name='qemu' type='qcow2' cache='none' discard='unmap'/>
      <source file='/var/lib/libvirt/images/disk{number}.qcow2'>{override}</source>
      <backingStore type='file'>
        <format type='qcow2'/>
        <source file='/var/lib/libvirt/images/base.qcow2'/>
        <backingStore/>
      </backingStore>
      <target dev='{name(number)}' bus='virtio'/>
      <alias name='virtio-disk{number}'/>
    </disk>
"""
        )
    devices = "\n".join(
        f"    <controller type='pci' index='{number}' model='pcie-root-port'>\n"
        f"      <target chassis='{number}' port='0x{number:x}'/>\n    </controller>"
        for number in range(1, 15)
    )
    return f"""<domain type='test'>
  <name>bench</name>
  <uuid>c7a5fdbd-edaf-9455-926a-d65c16db1809</uuid>
  <memory unit='KiB'>2097152</memory>
  <vcpu placement='static'>2</vcpu>
  <os><type arch='x86_64' machine='q35'>hvm</type><boot dev='hd'/></os>
  <features><acpi/><apic/></features>
  <devices>
{"".join(parts)}{devices}
    <interface type='network'><mac address='52:54:00:11:22:33'/><source network='default'/>
      <model type='virtio'/></interface>
    <serial type='pty'><target port='0'/></serial>
    <console type='pty'><target type='serial' port='0'/></console>
    <channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>
    <input type='tablet' bus='usb'/>
    <graphics type='vnc' port='-1'/>
    <video><model type='virtio'/></video>
    <memballoon model='virtio'/>
    <rng model='virtio'><backend model='random'>/dev/urandom</backend></rng>
  </devices>
  <seclabel type='dynamic' model='selinux' relabel='yes'/>
  <seclabel type='dynamic' model='dac' relabel='yes'/>
</domain>
"""


def ours(data: bytes) -> None:
    for document in read_seclabels(data, "bench"):
        validate(document, TARGET)


def main() -> int:
    from lxml import etree

    bench = Bench("Validate", clock=time.process_time)
    text = domain(2)
    data = text.encode()
    peers = {"lxml, parse alone": lambda: etree.fromstring(data)}
    try:
        import libvirt
    except ImportError:
        print("no libvirt bindings: its test driver is left out", file=sys.stderr)
    else:
        connection = libvirt.open("test:///default")
        peers["libvirt, test driver"] = lambda: connection.defineXML(text)
    seconds = bench.compare("a domain of two disks", lambda: ours(data), peers)["svirtlib"]
    missed = [] if 1 / seconds >= GOAL else ["speed"]
    print(f"{1 / seconds:,.0f} domains a second; goal {GOAL:,}")
    per_disk = {}
    for disks in (10, 100, 1000):
        large = domain(disks).encode()
        taken = []
        for _ in range(7):
            start = time.process_time()
            for _ in range(1000 // disks):
                ours(large)
            taken.append((time.process_time() - start) / 1000)
        per_disk[disks] = statistics.median(taken)
        print(f"{disks:5} disks: {per_disk[disks] * 1e6:6.1f} us a disk")
    slope = per_disk[1000] / per_disk[100]
    print(f"a disk among 1000 takes {slope:.2f} x one among 100; at most {SLOPE}")
    if slope > SLOPE:
        missed.append("growth")
    return bench.finish() or int(bool(missed))


if __name__ == "__main__":
    sys.exit(main())

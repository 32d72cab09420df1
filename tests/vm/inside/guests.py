"""Defines and starts guests in the machine, and tells what the kernel says of them.

guests.py start <SPECS     [{"name": ..., "seclabel": ..., "disks": [...]}, ...]
guests.py ask              processes, images, and the kernel's word on each pair
guests.py stop NAME...
guests.py clear            stops and forgets all
"""

import json
import os
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import libvirt
import libvirt_qemu
import selinux

FOLDER = "/var/lib/libvirt/images"
LOADER = "/usr/share/seabios/bios-256k.bin"


def run(*words):
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL)


def disk_xml(number, disk):
    kind, name = ("block", "dev") if disk["path"].startswith("/dev/") else ("file", "file")
    inside = disk.get("seclabel", "")
    flags = "".join(f"<{flag}/>" for flag in disk.get("flags", ()))
    format_ = disk.get("format", "raw")
    return (
        f"<disk type='{kind}' device='disk'><driver name='qemu' type='{format_}'/>"
        f"<source {name}='{disk['path']}'>{inside}</source>"
        f"<target dev='vd{'abcdefgh'[number]}' bus='virtio'/>{flags}</disk>"
    )


def guest_xml(spec):
    loader = ""
    if "nvram" in spec:
        loader = (
            f"<loader readonly='yes' type='pflash'>{LOADER}</loader><nvram>{spec['nvram']}</nvram>"
        )
    disks = "".join(disk_xml(number, disk) for number, disk in enumerate(spec.get("disks", ())))
    return (
        f"<domain type='qemu'><name>{spec['name']}</name>"
        "<memory unit='MiB'>32</memory><vcpu>1</vcpu>"
        f"<os><type arch='x86_64' machine='pc'>hvm</type>{loader}</os>"
        f"<features>{'<acpi/>' if loader else ''}</features>"
        f"<devices>{disks}<controller type='usb' model='none'/><memballoon model='none'/></devices>"
        f"{spec.get('seclabel', '')}</domain>"
    )


def create(spec):
    for disk in spec.get("disks", ()):
        path = disk["path"]
        if not path.startswith("/dev/") and not os.path.exists(path):
            if "backing" in disk:
                base = disk["backing"]
                if not os.path.exists(base):
                    run("qemu-img", "create", "-q", "-f", "qcow2", base, "1M")
                run("qemu-img", "create", "-q", "-f", "qcow2", "-b", base, "-F", "qcow2", path)
            else:
                run("qemu-img", "create", "-q", "-f", disk.get("format", "raw"), path, "1M")
        if "chcon" in disk:
            run("chcon", disk["chcon"], path)
    if "nvram" in spec and not os.path.exists(spec["nvram"]):
        with open(spec["nvram"], "wb") as stream:
            stream.write(bytes(128 * 1024))


def start(connection, specs):
    """Start guests, paused; return what libvirt says of each that it does not start."""
    # Before, as guests may share images.
    for spec in specs:
        create(spec)

    def one(spec):
        try:
            domain = named(connection, spec["name"]) or connection.defineXML(guest_xml(spec))
            domain.createWithFlags(libvirt.VIR_DOMAIN_START_PAUSED)
        except libvirt.libvirtError as error:
            return str(error)
        return ""

    # One for each processor: it is they that starting a guest takes.
    with ThreadPoolExecutor(2) as pool:
        return dict(zip([spec["name"] for spec in specs], pool.map(one, specs)))


def clear(connection):
    """Stop and forget all guests; their images stay."""
    for domain in connection.listAllDomains():
        if domain.isActive():
            domain.destroy()
        domain.undefineFlags(libvirt.VIR_DOMAIN_UNDEFINE_KEEP_NVRAM)


def named(connection, name):
    """The guest of this name, if it was started before."""
    known = [domain for domain in connection.listAllDomains() if domain.name() == name]
    return known[0] if known else None


def processes(connection):
    found = {}
    for domain in connection.listAllDomains(libvirt.VIR_CONNECT_LIST_DOMAINS_ACTIVE):
        with open(f"/run/libvirt/qemu/{domain.name()}.pid") as stream:
            pid = int(stream.read())
        with open(f"/proc/{pid}/attr/current") as stream:
            found[domain.name()] = {"pid": pid, "context": stream.read().rstrip("\0\n")}
    return found


def may(source, target, kind):
    """The kernel's answer, from selinuxfs: may it open, read and write?"""
    number = selinux.string_to_security_class(kind)
    decision = selinux.av_decision()
    if selinux.security_compute_av_raw(source, target, number, 0, decision):
        raise OSError(f"{source} {target}")
    granted = []
    for word in ("read", "write"):
        bits = selinux.string_to_av_perm(number, word) | selinux.string_to_av_perm(number, "open")
        granted.append(decision.allowed & bits == bits)
    return granted


def opens(domain, path):
    """Have the guest's own QEMU open a file to read and write, and close it again."""
    node = {"driver": "file", "filename": path, "node-name": "probe", "locking": "off"}
    answer = monitor(domain, "blockdev-add", node)
    if "error" in answer:
        # QEMU's words for EACCES and EPERM; anything else is no answer.
        text = answer["error"]["desc"]
        if "Permission denied" not in text and "not permitted" not in text:
            raise RuntimeError(f"{domain.name()} on {path}: {text}")
        return False
    monitor(domain, "blockdev-del", {"node-name": "probe"})
    return True


def monitor(domain, command, arguments):
    text = json.dumps({"execute": command, "arguments": arguments})
    return json.loads(libvirt_qemu.qemuMonitorCommand(domain, text, 0))


def as_owner_sees(path, guests):
    """Each guest has a /dev of its own, with the devices that are its own alone."""
    if path.startswith("/dev/"):
        for process in guests.values():
            own = f"/proc/{process['pid']}/root{path}"
            if os.path.exists(own):
                return own
    return path


def ask(connection, paths):
    guests = processes(connection)
    images, pairs = {}, []
    for path in paths:
        seen = as_owner_sees(path, guests)
        context = selinux.getfilecon_raw(seen)[1]
        block = stat.S_ISBLK(os.stat(seen).st_mode)
        images[path] = {"context": context, "class": "blk_file" if block else "file"}
    for name, process in sorted(guests.items()):
        domain = connection.lookupByName(name)
        for path, image in sorted(images.items()):
            read, write = may(process["context"], image["context"], image["class"])
            # A guest sees but its own devices.
            opened = None if path.startswith("/dev/") else opens(domain, path)
            pairs.append([name, path, read, write, opened])
    return {"guests": guests, "images": images, "pairs": pairs}


def main():
    libvirt.registerErrorHandler(lambda *_: None, None)
    connection = libvirt.open("qemu:///system")
    verb = sys.argv[1]
    given = json.loads(sys.stdin.read() or "null")
    if verb == "start":
        answer = start(connection, given)
    elif verb == "ask":
        answer = ask(connection, given)
    elif verb == "clear":
        answer = clear(connection)
    else:
        answer = [connection.lookupByName(name).destroy() for name in sys.argv[2:]]
    json.dump(answer, sys.stdout)


main()

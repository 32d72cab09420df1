"""Read how a host is set up beside its consoles: devices, mounts, units, firewall, SELinux."""

from __future__ import annotations

import functools
import os
import re
import stat
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Optional

from svirtlib.backends._boot import read_initrd_settings, read_kernel, read_mounts
from svirtlib.backends._firewall import VIEWER, loaded_rules, owner_rules_of, read_open_ports
from svirtlib.backends._sudoers import read_sudo
from svirtlib.backends._tree import Tree, lines_in
from svirtlib.booleans import Boolean
from svirtlib.errors import DomainXMLError, SvirtError
from svirtlib.guests import Guest, Unreadable
from svirtlib.hostconfig import FileFacts
from svirtlib.hostpractices import (
    BlockDevice,
    LvmConfig,
    MountEntry,
    PciDevice,
    PortDenied,
    Practices,
    SelinuxConfig,
    Setting,
    ViewerFile,
    VirtualNetwork,
    classify_by_name,
)
from svirtlib.inboundrules import input_filtered
from svirtlib.portuse import denials, port_uses
from svirtlib.selinuxconfig import policy_name
from svirtlib.settings import Settings
from svirtlib.xmltree import parse_tree

if TYPE_CHECKING:
    from svirtlib.backends.policy import Policy

__all__ = ["policy_type", "read_practices"]

_SYSTEMD = "/etc/systemd/system"
#: Where sysctl settings stand, the later ones winning.
_SYSCTL = ("/usr/lib/sysctl.d", "/run/sysctl.d", "/etc/sysctl.d")
#: A text in LVM's configuration.
_LVM_TEXT = r'"(?:[^"\\]|\\.)*"'


def read_practices(
    tree: Tree,
    guests: Sequence[Guest],
    conf: Optional[Settings] = None,
    *,
    live: bool,
    mapped: bool = False,
    initrd: bool = False,
) -> Practices:
    """Return how the host is set up.

    Args:
        tree: its files.
        guests: whose devices are looked at.
        conf: ``qemu.conf``; None where it cannot be read.
        live: the host is this machine.
        mapped: a map of consoles to users was named.
        initrd: look into the initial RAM disks, which takes seconds.
    """
    mounts = [*read_mounts(tree, live=live)]
    units = _units(tree)
    kernel = [*read_kernel(tree)]
    if initrd:
        found = [*read_initrd_settings(tree)]
        mounts += [entry for entry in found if isinstance(entry, MountEntry)]
        kernel += [entry for entry in found if isinstance(entry, Setting)]
    booleans, denied = _policy_facts(tree, guests, conf)
    rules = loaded_rules(tree, units, live=live)
    owner_rules, origin = owner_rules_of(tree, rules, live=live) if mapped else (None, "")
    return Practices(
        blocks=tuple(_blocks(tree, guests, mounts, live=live)),
        mounts=tuple(mounts),
        kernel=tuple(kernel),
        lvm=_lvm(tree),
        pci=_pci(tree, guests),
        unsafe_interrupts=_unsafe_interrupts(tree, kernel),
        selinux=_selinux(tree, kernel),
        booleans=booleans,
        ports_denied=denied,
        units=units,
        listen_option=_listen_option(tree),
        socket_mode=_socket_mode(tree),
        polkit_open=tuple(_polkit(tree)),
        networks=_networks(tree),
        forwarding=_forwarding(tree, live=live),
        root_login=_root_login(tree),
        input_filtered=None if rules is None else input_filtered(rules),
        open_ports=None if rules is None else read_open_ports(tree, rules, live=live),
        owner_rules=owner_rules,
        owner_rules_origin=origin,
        sudo=read_sudo(tree, mapped=mapped),
        viewer=_viewer(tree),
        listening=tuple(_listening(tree)) if live else None,
    )


def _blocks(
    tree: Tree, guests: Sequence[Guest], mounts: Sequence[MountEntry], *, live: bool
) -> Iterator[BlockDevice]:
    paths = {
        link.source
        for guest in guests
        if guest.devices is not None
        for link in guest.devices.storage
        if link.type in ("block", "volume") and link.source.startswith("/dev/")
    }
    for path in sorted(paths):
        number = _device_number(path) if live else None
        used = _used(path, mounts)
        if number is None:
            yield BlockDevice(path, classify_by_name(path), by_name=True, used=used)
        else:
            folder = f"/sys/dev/block/{number}"
            holder = used or _used_parts(tree, folder, mounts)
            yield BlockDevice(path, _classify(tree, folder), by_name=False, used=holder)


def _device_number(path: str) -> Optional[str]:
    try:
        found = os.stat(path)
    except OSError:
        return None
    if not stat.S_ISBLK(found.st_mode):
        return None
    return f"{os.major(found.st_rdev)}:{os.minor(found.st_rdev)}"


def _classify(tree: Tree, folder: str) -> str:
    """Return the kind of the device that a folder of sysfs is about."""
    if tree.exists(f"{folder}/partition"):
        return "partition"
    identity = (tree.text(f"{folder}/dm/uuid") or "").strip()
    for start, kind in (("LVM-", "lv"), ("mpath-", "multipath"), ("CRYPT-", "crypt")):
        if identity.startswith(start):
            return kind
    if re.match(r"part\d+-", identity):
        return "partition"
    if identity or tree.exists(f"{folder}/dm"):
        return "unknown"
    if tree.exists(f"{folder}/loop"):
        return "loop"
    if tree.exists(f"{folder}/md"):
        return "array"
    return "disk"


def _used(path: str, mounts: Sequence[MountEntry]) -> Optional[str]:
    """Return what the host does with a device, by its name or that of one of its partitions."""
    whole = classify_by_name(path) in ("disk", "multipath", "array")
    for mount in mounts:
        same = mount.source == path
        part = whole and re.fullmatch(re.escape(path) + r"(?:-part|p)?\d+", mount.source)
        if (same or part) and "noauto" not in mount.options.split(","):
            return f"{mount.source} is mounted at {mount.target} ({mount.origin})"
    return None


def _used_parts(tree: Tree, folder: str, mounts: Sequence[MountEntry]) -> Optional[str]:
    """Return what the host does with a device or its parts, by their names in sysfs."""
    names = {(tree.link(folder) or "").rpartition("/")[2]}
    for name in tree.names(folder):
        if tree.exists(f"{folder}/{name}/partition"):
            names.add(name)
    for mount in mounts:
        if mount.source.startswith("/dev/"):
            real = os.path.realpath(mount.source).rpartition("/")[2]
            if real in names and real:
                return f"{mount.source} is mounted at {mount.target} ({mount.origin})"
    return None


def _lvm(tree: Tree) -> Optional[LvmConfig]:
    path = "/etc/lvm/lvm.conf"
    if not tree.exists("/etc/lvm"):
        return None
    patterns: Optional[tuple[str, ...]] = None
    switch = None
    # What stands in the second of these wins.
    for name in (path, "/etc/lvm/lvmlocal.conf"):
        text = tree.text(name)
        if text is None:
            if tree.read(name) is not None:
                # It is told that it cannot be read; what it says nobody knows.
                return None
            continue
        text = re.sub(rf"({_LVM_TEXT})|#[^\n]*", lambda match: match[1] or "", text)
        if not _is_whole(tree, name, re.sub(_LVM_TEXT, "", text)):
            return None
        for found in re.finditer(
            rf'(?:^|[\s{{/])global_filter\s*=\s*(\[(?:[^\]"]|{_LVM_TEXT})*\]|{_LVM_TEXT})', text
        ):
            path = name
            patterns = tuple(
                re.sub(r'\\(["\\])', r"\1", one[1:-1]) for one in re.findall(_LVM_TEXT, found[1])
            )
        for found in re.finditer(r"(?:^|[\s{/])use_devicesfile\s*=\s*([01])", text):
            switch = found[1]
    return LvmConfig(
        path=path,
        patterns=patterns,
        # Where the file is, the distribution's default is to use it.
        devices_file=switch != "0" and tree.exists("/etc/lvm/devices/system.devices"),
    )


def _pci(tree: Tree, guests: Sequence[Guest]) -> Optional[tuple[PciDevice, ...]]:
    folder = "/sys/bus/pci/devices"
    if not tree.exists(folder):
        return None
    found = []
    addresses = {
        device.name
        for guest in guests
        if guest.devices is not None
        for device in guest.devices.host_devices
        if device.kind == "pci"
    }
    for address in sorted(addresses):
        here = f"{folder}/{address}"
        total = (tree.text(f"{here}/sriov_totalvfs") or "0").strip()
        if not tree.exists(here):
            found.append(PciDevice(address, "absent"))
        elif tree.link(f"{here}/physfn") is not None or tree.exists(f"{here}/physfn"):
            found.append(PciDevice(address, "virtual"))
        elif total.isdigit() and int(total):
            found.append(PciDevice(address, "physical", int(total)))
        else:
            found.append(PciDevice(address, "plain"))
    return tuple(found)


def _unsafe_interrupts(tree: Tree, kernel: Sequence[Setting]) -> Optional[Setting]:
    live = "/sys/module/vfio_iommu_type1/parameters/allow_unsafe_interrupts"
    if (tree.text(live) or "").strip() in ("Y", "1"):
        return Setting("Y", live)
    for setting in kernel:
        if re.search(r"\bvfio_iommu_type1\.allow_unsafe_interrupts(?:=[1Yy]|\s|$)", setting.value):
            return setting
    for folder in ("/etc/modprobe.d", "/usr/lib/modprobe.d"):
        for name in tree.names(folder):
            for line, origin in lines_in(tree, f"{folder}/{name}"):
                if re.fullmatch(
                    r"options\s+vfio_iommu_type1\s.*\ballow_unsafe_interrupts=[1Yy]\S*.*", line
                ):
                    return Setting(line, origin)
    return None


def _selinux(tree: Tree, kernel: Sequence[Setting]) -> Optional[SelinuxConfig]:
    path = "/etc/selinux/config"
    mode, origin = None, path
    if tree.text(path) is None:
        return None
    for line, place in lines_in(tree, path):
        name, equals, value = line.partition("=")
        if equals and name.strip() == "SELINUX":
            mode, origin = value.strip().lower(), place
            break
    off = None
    for setting in kernel:
        words = setting.value.split()
        if "selinux=0" in words or "enforcing=0" in words:
            off = setting
    return SelinuxConfig(mode, origin, off)


def _policy_facts(
    tree: Tree, guests: Sequence[Guest], conf: Optional[Settings]
) -> tuple[Optional[tuple[Boolean, ...]], Optional[tuple[PortDenied, ...]]]:
    """Return the booleans, now and at the next boot, and the ports that are kept from QEMU.

    libsemanage writes what is set locally into the policy's file, too.
    """
    folder = "/sys/fs/selinux/booleans"
    live = {
        name: (tree.text(f"{folder}/{name}") or "0").split()[:1] == ["1"]
        for name in tree.names(folder)
    }
    stored: Optional[dict[str, bool]] = None
    denied: Optional[tuple[PortDenied, ...]] = None
    folder = f"/etc/selinux/{policy_type(tree)}"
    policies = [
        name for name in tree.names(f"{folder}/policy") if re.fullmatch(r"policy\.\d+", name)
    ]
    if policies:
        path = f"{folder}/policy/{max(policies, key=lambda name: int(name.partition('.')[2]))}"
        from svirtlib.backends.policy import open_policy

        try:
            with tree.opened(path) as opened, open_policy(opened) as policy:
                stored = policy.booleans()
                lines = lines_in(tree, f"{folder}/contexts/virtual_domain_context")
                contexts = [line for line, _ in lines]
                if contexts and conf is not None:
                    denied = _denied(policy, contexts, guests, conf)
        except (SvirtError, OSError) as error:
            tree.unreadable[path] = Unreadable(path, f"not asked: {error}")
    if not live and stored is None:
        return None, denied
    return tuple(
        Boolean(name, None if stored is None else stored.get(name), live.get(name))
        for name in sorted({*live, *(stored or ())})
    ), denied


def _denied(
    policy: Policy, contexts: Sequence[str], guests: Sequence[Guest], conf: Settings
) -> tuple[PortDenied, ...]:
    # The first is that of guests with KVM; what is asked of the policy has its user and range.
    user, role, _, *level = contexts[0].split(":", 3)

    @functools.cache
    def may_bind(domain: str, type: str) -> bool:
        source = ":".join((user, role, domain, *level))
        target = ":".join((user, "object_r", type, *level))
        return policy.allowed(source, target, "tcp_socket", "name_bind")

    uses = port_uses(guests, conf, [context.split(":")[2] for context in contexts])
    return denials(uses, policy.tcp_ports(), may_bind)


def policy_type(tree: Tree) -> str:
    """Return the policy's name; libselinux takes ``targeted`` where none is set."""
    return os.path.basename(policy_name(tree.text("/etc/selinux/config") or ""))


def _units(tree: Tree) -> Optional[frozenset[str]]:
    """Return the names of units that other units want at boot."""
    if not tree.exists(_SYSTEMD):
        return None
    found = set()
    for name in tree.names(_SYSTEMD):
        if name.endswith((".wants", ".requires")):
            found.update(tree.names(f"{_SYSTEMD}/{name}"))
    return frozenset(found)


def _listen_option(tree: Tree) -> Optional[Setting]:
    for path in ("/etc/default/libvirtd", "/etc/sysconfig/libvirtd"):
        for line, origin in lines_in(tree, path):
            name, equals, value = line.partition("=")
            words = re.split(r"[\s'\"]+", value)
            if equals and name.strip() == "LIBVIRTD_ARGS" and {"--listen", "-l"} & {*words}:
                return Setting(line, origin)
    return None


def _socket_mode(tree: Tree) -> Optional[Setting]:
    """Return the mode that an administrator gave libvirt's read-write socket."""
    found = None
    for unit in ("libvirtd.socket", "virtqemud.socket"):
        folder = f"{_SYSTEMD}/{unit}.d"
        for path in (f"{_SYSTEMD}/{unit}", *(f"{folder}/{name}" for name in tree.names(folder))):
            for line, origin in lines_in(tree, path):
                name, equals, value = line.partition("=")
                if equals and name.strip() == "SocketMode":
                    found = Setting(value.strip(), origin)
    return found


def _polkit(tree: Tree) -> Iterator[str]:
    """Yield rules that grant the management of guests without asking who it is."""
    folders = ("/etc/polkit-1/rules.d", "/usr/share/polkit-1/rules.d")
    for path in (f"{folder}/{name}" for folder in folders for name in tree.names(folder)):
        text = tree.text(path) or ""
        text = re.sub(r"//[^\n]*|/\*.*?\*/", "", text, flags=re.DOTALL)
        if not _is_whole(tree, path, re.sub(r"'[^'\n]*'|\"[^\"\n]*\"", "", text)):
            continue
        # Whoever compares no action grants all of them.
        manages = re.search(r"org\.libvirt(?!\.unix\.monitor)", text) or "action." not in text
        grants = re.search(r"\breturn\s+polkit\.Result\.YES\b", text)
        asks = re.search(r"subject\.(?:isInGroup|user|groups|local|active)", text)
        if manages and grants and not asks:
            yield path


def _is_whole(tree: Tree, path: str, text: str) -> bool:
    """Tell whether every brace has its end; its reader refuses a file that was cut short."""
    whole = text.count("{") == text.count("}") and text.count("(") == text.count(")")
    if not whole:
        tree.unreadable[path] = Unreadable(
            path, "not judged: it is cut short, or a brace is missing"
        )
    return whole


def _networks(tree: Tree) -> Optional[tuple[VirtualNetwork, ...]]:
    folder = "/etc/libvirt/qemu/networks"
    if not tree.exists(folder):
        return None
    found = []
    for name in tree.names(folder):
        data = tree.read(f"{folder}/{name}") if name.endswith(".xml") else None
        if not isinstance(data, bytes):
            continue
        try:
            root = parse_tree(data, f"{folder}/{name}", "a network of libvirt")
        except DomainXMLError as error:
            tree.unreadable[name] = Unreadable(f"{folder}/{name}", error.reason)
            continue
        forward = root.find("forward")
        mode = None if forward is None else forward.get("mode", "nat")
        found.append(VirtualNetwork((root.findtext("name") or name).strip(), mode))
    return tuple(found)


def _forwarding(tree: Tree, *, live: bool) -> Optional[Setting]:
    if live:
        text = tree.text("/proc/sys/net/ipv4/ip_forward")
        return None if text is None else Setting(text.strip(), "/proc/sys/net/ipv4/ip_forward")
    found = None
    files = {}
    for folder in _SYSCTL:
        for name in tree.names(folder):
            if name.endswith(".conf"):
                files[name] = f"{folder}/{name}"
    for path in (*(files[name] for name in sorted(files)), "/etc/sysctl.conf"):
        for line, origin in lines_in(tree, path):
            name, equals, value = line.lstrip("-").partition("=")
            if equals and name.strip().replace("/", ".") in (
                "net.ipv4.ip_forward",
                "net.ipv4.conf.all.forwarding",
            ):
                found = Setting(value.strip(), origin)
    return found


def _root_login(tree: Tree) -> Optional[Setting]:
    """Return what sshd says of root; the first line counts, and included files come first."""
    path = "/etc/ssh/sshd_config"
    if tree.text(path) is None:
        return None
    folder = "/etc/ssh/sshd_config.d"
    included = [f"{folder}/{name}" for name in tree.names(folder) if name.endswith(".conf")]
    for place in (*included, path):
        for line, origin in lines_in(tree, place):
            words = line.replace("=", " ").split()
            if words[0].lower() == "match":
                break
            if words[0].lower() == "permitrootlogin" and len(words) > 1:
                return Setting(words[1].strip('"').lower(), origin)
    return Setting("prohibit-password", "sshd's default")


def _viewer(tree: Tree) -> Optional[ViewerFile]:
    facts = tree.facts(VIEWER)
    if not isinstance(facts, FileFacts):
        return None
    return ViewerFile(facts.path, facts.mode, facts.uid, facts.gid)


def _listening(tree: Tree) -> Iterator[tuple[str, int]]:
    """Yield address and port of TCP sockets that listen on more than the loopback."""
    for path, width in (("/proc/net/tcp", 8), ("/proc/net/tcp6", 32)):
        for line in (tree.text(path) or "").splitlines()[1:]:
            fields = line.split()
            if len(fields) < 4 or fields[3] != "0A":
                continue
            address, _, port = fields[1].partition(":")
            if len(address) != width:
                continue
            if width == 8 and address.endswith("7F"):
                continue
            if address == "00000000000000000000000001000000":
                continue
            wild = set(address) == {"0"}
            yield ("every address" if wild else "one address"), int(port, 16)

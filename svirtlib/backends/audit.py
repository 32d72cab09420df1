"""Read what ``audit`` judges: the guests with their devices, and the host's configuration."""

from __future__ import annotations

import datetime as dt
import os
from collections.abc import Sequence
from typing import Optional, Union

from attr import evolve

from svirtlib.backends import _certificates
from svirtlib.backends._practices import read_practices
from svirtlib.backends._sudoers import sudoers_files
from svirtlib.backends._tree import Tree
from svirtlib.consolerules import ConsoleUser
from svirtlib.consoles import cert_dir
from svirtlib.domainxml import MAX_BYTES, OtherDocumentError, parse_document
from svirtlib.errors import ConfigurationError, DomainXMLError
from svirtlib.guests import Guest, Inventory, Unreadable
from svirtlib.hostconfig import (
    UNKNOWN,
    Account,
    Arguments,
    BrokenFile,
    CertificateStore,
    FileFacts,
    HostConfig,
    SaslConfig,
    Unknown,
)
from svirtlib.hostpractices import Practices
from svirtlib.inventory import take_inventory
from svirtlib.ports import Progress
from svirtlib.sasl import parse_sasl
from svirtlib.settings import DAEMON_KEYS, QEMU_KEYS, Kind, Settings, read_settings
from svirtlib.virconf import parse_conf
from svirtlib.wording import listed

__all__ = ["audit_documents", "audit_host", "audit_inventory", "audit_tree"]

#: Where libvirt keeps definitions, and the state of guests that run.
_DEFINITIONS = "/etc/libvirt/qemu"
_STATES = "/run/libvirt/qemu"

#: The users that libvirt is built to start QEMU as: of Debian, and of everybody else.
_QEMU_USERS = ("libvirt-qemu", "qemu")

#: Services may share a file; guests do not.
_RECENT = 20

#: Services of QEMU with certificates: the switch in ``qemu.conf`` that puts them to use.
_SERVICES = {
    "vnc": "vnc_tls",
    "spice": "spice_tls",
    "chardev": "chardev_tls",
    "migrate": "migrate_tls_force",
}


def audit_documents(
    paths: Sequence[str],
    *,
    root: Optional[str] = None,
    names: Sequence[str] = (),
    console_map: Optional[str] = None,
    initrd: bool = False,
    progress: Optional[Progress] = None,
) -> tuple[Inventory, Optional[HostConfig]]:
    """Return the guests of documents, and the configuration of an unpacked host if one is named.

    Raises:
        DomainXMLError: no document is one of a guest.
        BackendError: no document, or not the root, could be opened.
    """
    from svirtlib.backends._documents import Documents

    inventory = take_inventory(Documents(paths, devices=True), progress=progress)
    return audit_inventory(
        inventory, root=root, names=names, console_map=console_map, initrd=initrd
    )


def audit_inventory(
    inventory: Inventory,
    *,
    root: Optional[str] = None,
    names: Sequence[str] = (),
    console_map: Optional[str] = None,
    initrd: bool = False,
) -> tuple[Inventory, Optional[HostConfig]]:
    """Return guests that were read already, and the configuration of a host if one is named.

    Guests without devices, as a process that libvirt does not know, become unknown.

    Raises:
        BackendError: the root could not be opened.
    """
    unknown = [guest.name for guest in inventory.guests if guest.devices is None]
    if unknown:
        gap = Unreadable(
            f"consoles and devices of {listed(unknown)}",
            "what was read does not tell them; read the guests themselves, or write the snapshot "
            "anew with this version",
        )
        inventory = evolve(inventory, unreadable=(*inventory.unreadable, gap))
    if root is None:
        return inventory, None
    tree = Tree(root)
    try:
        return inventory, _configuration(
            tree,
            inventory.guests,
            {},
            live=tree.root == "/",
            names=names,
            console_map=console_map,
            initrd=initrd,
        )
    finally:
        tree.close()


def audit_tree(
    root: str,
    *,
    names: Sequence[str] = (),
    console_map: Optional[str] = None,
    initrd: bool = False,
) -> tuple[Inventory, HostConfig]:
    """Return the guests that an unpacked host defines, and its configuration.

    Args:
        root: the directory that stands for ``/``; no link is followed out of it.
        names: the names that clients know the host by; else what its files say.
        console_map: a map of consoles to users, for rules about these.
        initrd: look into the initial RAM disks too, which takes seconds.

    Raises:
        BackendError: the root cannot be opened.
    """
    tree = Tree(root)
    try:
        found, unreadable = _defined(tree)
        guests = {key: guest for key, (guest, _) in found.items()}
        files = {key: path for key, (_, path) in found.items()}
        ordered = tuple(sorted(guests.values(), key=lambda guest: (guest.name, guest.uuid or "")))
        inventory = Inventory(guests=ordered, unreadable=tuple(unreadable))
        return inventory, _configuration(
            tree,
            ordered,
            files,
            live=tree.root == "/",
            names=names,
            console_map=console_map,
            initrd=initrd,
        )
    finally:
        tree.close()


def audit_host(
    uri: Optional[str] = None,
    *,
    timeout: Optional[float] = None,
    names: Sequence[str] = (),
    console_map: Optional[str] = None,
    initrd: bool = False,
    progress: Optional[Progress] = None,
) -> tuple[Inventory, Optional[HostConfig]]:
    """Return the guests of a libvirt connection and, if it is this machine's, its configuration.

    libvirt tells no password over a connection that only reads; as root, the definitions on
    the disk tell whether there is one.

    Raises:
        BackendError: libvirt cannot be asked.
    """
    from svirtlib.backends import _libvirt

    source = _libvirt.LibvirtGuests(
        uri, timeout=_libvirt.DEFAULT_TIMEOUT if timeout is None else timeout, devices=True
    )
    try:
        inventory = take_inventory(source, progress=progress)
        if not source.is_system:
            return inventory, None
    finally:
        source.close()
    tree = Tree("/")
    try:
        found, _ = _defined(tree)
        guests = []
        files = {}
        for guest in inventory.guests:
            known = found.get((guest.name, guest.running))
            if known is not None and known[0].uuid == guest.uuid:
                files[guest.name, guest.running] = known[1]
                guest = evolve(guest, devices=known[0].devices)
            guests.append(guest)
        inventory = evolve(inventory, guests=tuple(guests))
        return inventory, _configuration(
            tree, guests, files, live=True, names=names, console_map=console_map, initrd=initrd
        )
    finally:
        tree.close()


#: A guest's name, and whether it runs.
_Key = tuple[str, bool]


def _defined(tree: Tree) -> tuple[dict[_Key, tuple[Guest, str]], list[Unreadable]]:
    """Return the guests whose XML libvirt keeps on the disk, with their files."""
    found: dict[_Key, tuple[Guest, str]] = {}
    unreadable: list[Unreadable] = []
    running: set[str] = set()
    for folder in (_STATES, _DEFINITIONS):
        for name in tree.names(folder):
            if not name.endswith(".xml"):
                continue
            path = f"{folder}/{name}"
            data = tree.read(path, MAX_BYTES)
            if not isinstance(data, bytes):
                continue
            try:
                guests = parse_document(data, path, devices=True)
            except OtherDocumentError:
                continue
            except DomainXMLError as error:
                where = path if error.line is None else f"{path}:{error.line}"
                unreadable.append(Unreadable(where, error.reason))
                continue
            for guest in guests:
                if guest.running:
                    running.add(guest.name)
                found.setdefault((guest.name, guest.running), (guest, path))
    if tree.root != "/":
        # A guest that runs is judged as it runs.
        found = {key: value for key, value in found.items() if key[1] or key[0] not in running}
    return found, unreadable


def _configuration(
    tree: Tree,
    guests: Sequence[Guest],
    files: dict[_Key, str],
    *,
    live: bool,
    names: Sequence[str],
    console_map: Optional[str] = None,
    initrd: bool = False,
) -> HostConfig:
    users = None if console_map is None else _console_users(tree, console_map, live=live)
    broken: list[BrokenFile] = []
    qemu = _settings(tree, "/etc/libvirt/qemu.conf", QEMU_KEYS, broken)
    daemons = [
        one
        for name in ("libvirtd", "virtqemud", "virtproxyd")
        for one in [_settings(tree, f"/etc/libvirt/{name}.conf", DAEMON_KEYS, broken)]
        if isinstance(one, Settings)
    ]
    accounts = _accounts(tree)
    user, group = _qemu_user(tree, qemu, accounts)
    cert_dirs = tuple(f"/etc/pki/{name}" for name in tree.names("/etc/pki"))
    stores: list[CertificateStore] = []
    secrets: list[FileFacts] = []
    sasl: list[SaslConfig] = []
    if isinstance(qemu, Settings):
        stores = _stores(tree, qemu, cert_dirs, secrets)
        sasl = _sasl(tree, qemu, broken, secrets)
        if qemu.has("vnc_password") or qemu.has("spice_password"):
            _secret(tree, secrets, qemu.source, "passwords of consoles")
    practices = read_practices(
        tree,
        guests,
        qemu if isinstance(qemu, Settings) else None,
        live=live,
        mapped=console_map is not None,
        initrd=initrd,
    )
    if _serves_tls(practices, daemons):
        stores.append(_daemon_store(tree, daemons, secrets))
    for guest in guests:
        path = files.get((guest.name, guest.running))
        graphics = () if guest.devices is None else guest.devices.graphics
        if path is not None and any(one.password is not None for one in graphics):
            _secret(tree, secrets, path, "passwords of consoles")
    return HostConfig(
        root=tree.root,
        live=live,
        now=dt.datetime.now(dt.timezone.utc),
        names=tuple(names) or _names(tree),
        accounts=accounts,
        qemu=qemu,
        qemu_user=user,
        qemu_group=group,
        broken=tuple(broken),
        sasl=tuple(sasl),
        stores=tuple(stores),
        secrets=tuple(secrets),
        cert_dirs=cert_dirs,
        fips=_fips(tree, live=live),
        daemons=tuple(daemons),
        practices=practices,
        sudoers=tuple(sudoers_files(tree)),
        console_users=users,
        arguments=_arguments() if live else (),
        unreadable=tuple(tree.unreadable.values()),
    )


def _console_users(tree: Tree, path: str, *, live: bool) -> tuple[ConsoleUser, ...]:
    """Return the lines of a map, for the users of the host that is looked at.

    Raises:
        ConfigurationError: it is no map, or names a user that the host does not have.
    """
    from svirtlib.backends import consolefiles

    if live:
        return consolefiles.read_map(path)
    return consolefiles.read_map(path, {one.name: one.uid for one in _accounts(tree)})


def _settings(
    tree: Tree, path: str, kinds: dict[str, Kind], broken: list[BrokenFile]
) -> Union[Settings, Unknown]:
    data = tree.read(path)
    if data is None:
        return Settings(path)
    if isinstance(data, Unreadable):
        return UNKNOWN
    try:
        settings = read_settings(parse_conf(data, path), kinds)
        if settings.flag("allow_disk_format_probing"):
            # virQEMUDriverConfigLoadSecurityEntry ends with an error there.
            key = "allow_disk_format_probing"
            raise ConfigurationError(path, f"{key} is supported no more", dict(settings.lines)[key])
        return settings
    except ConfigurationError as error:
        broken.append(BrokenFile(path, error.reason, error.line))
        tree.unreadable[path] = Unreadable(
            path if error.line is None else f"{path}:{error.line}",
            f"not judged, as libvirt refuses it: {error.reason}",
        )
        return UNKNOWN


def _accounts(tree: Tree) -> tuple[Account, ...]:
    accounts = []
    for line in (tree.text("/etc/passwd") or "").splitlines():
        fields = line.split(":")
        if len(fields) == 7 and fields[2].isdigit() and fields[3].isdigit():
            accounts.append(Account(fields[0], int(fields[2]), int(fields[3]), fields[6]))
    return tuple(accounts)


def _groups(tree: Tree) -> dict[str, int]:
    groups = {}
    for line in (tree.text("/etc/group") or "").splitlines():
        fields = line.split(":")
        if len(fields) == 4 and fields[2].isdigit():
            groups[fields[0]] = int(fields[2])
    return groups


def _qemu_user(
    tree: Tree, qemu: Union[Settings, Unknown], accounts: tuple[Account, ...]
) -> tuple[Optional[Account], Optional[int]]:
    """Return the user and the group that QEMU runs as."""
    named = qemu.text("user") if isinstance(qemu, Settings) else None
    by_name = {account.name: account for account in accounts}
    user: Optional[Account] = None
    if named is not None:
        number = named.removeprefix("+")
        user = by_name.get(named) or (Account("root", 0, 0) if named == "root" else None)
        if user is None and number.isdigit():
            same = [account for account in accounts if account.uid == int(number)]
            user = same[0] if same else Account(number, int(number), int(number))
        if user is None and accounts:
            tree.unreadable["user"] = Unreadable(
                f"the user {named} in /etc/libvirt/qemu.conf",
                "the host's /etc/passwd does not have it: nobody can tell as whom QEMU runs",
            )
    else:
        user = next((by_name[name] for name in _QEMU_USERS if name in by_name), None)
    group_name = qemu.text("group") if isinstance(qemu, Settings) else None
    if group_name is None:
        return user, None if user is None else user.gid
    number = group_name.removeprefix("+")
    group = _groups(tree).get(group_name, int(number) if number.isdigit() else None)
    return user, group


def _names(tree: Tree) -> tuple[str, ...]:
    """Return the host's names: its own, and those that ``/etc/hosts`` gives with it."""
    words = (tree.text("/etc/hostname") or "").split()
    if not words:
        return ()
    own = words[0].lower()
    names = {own}
    for line in (tree.text("/etc/hosts") or "").splitlines():
        entry = [word.lower() for word in line.partition("#")[0].split()][1:]
        if own in entry:
            names.update(name for name in entry if not name.startswith("localhost"))
    return tuple(sorted(names))


def _stores(
    tree: Tree, qemu: Settings, cert_dirs: tuple[str, ...], secrets: list[FileFacts]
) -> list[CertificateStore]:
    stores = []
    for service, switch in _SERVICES.items():
        if not qemu.flag(switch):
            continue
        directory = cert_dir(qemu, service, cert_dirs)
        stores.append(_certificates.read_store(tree, service, directory, _certificates.QEMU))
        _secret(tree, secrets, f"{directory}/server-key.pem", f"the private key of {service}")
    return stores


def _serves_tls(practices: Practices, daemons: Sequence[Settings]) -> bool:
    """Tell whether one of libvirt's daemons listens with TLS."""
    units = practices.units or frozenset()
    if any(f"{daemon}-tls.socket" in units for daemon in ("libvirtd", "virtproxyd")):
        return True
    libvirtd = [conf for conf in daemons if conf.source.endswith("/libvirtd.conf")]
    return practices.listen_option is not None and all(
        conf.flag("listen_tls", default=True) for conf in libvirtd
    )


def _daemon_store(
    tree: Tree, daemons: Sequence[Settings], secrets: list[FileFacts]
) -> CertificateStore:
    """Return the certificates of libvirt's daemon, which has a path for each file."""

    def path(key: str, default: str) -> str:
        return next((conf.text(key) or default for conf in daemons if conf.text(key)), default)

    usual = _certificates.LIBVIRT
    files = evolve(
        usual,
        authority=path("ca_file", usual.authority),
        certificate=path("cert_file", usual.certificate),
        key=path("key_file", usual.key),
    )
    facts = tree.facts(files.key, "the private key of libvirt")
    if isinstance(facts, FileFacts):
        secrets.append(facts)
    return _certificates.read_store(tree, "libvirt", "/etc/pki/libvirt", files)


def _sasl(
    tree: Tree, qemu: Settings, broken: list[BrokenFile], secrets: list[FileFacts]
) -> list[SaslConfig]:
    found = []
    for service in ("vnc", "spice"):
        if not qemu.flag(f"{service}_sasl"):
            continue
        path = f"{qemu.text(f'{service}_sasl_dir') or '/etc/sasl2'}/qemu.conf"
        config = _sasl_file(tree, service, path, broken)
        if config is None:
            continue
        keytab = config.keytab
        if keytab is not None:
            config = evolve(config, keytab_exists=tree.exists(keytab))
            _secret(tree, secrets, keytab, "Kerberos keys")
        if config.sasldb is not None:
            _secret(tree, secrets, config.sasldb, "passwords of SASL")
        found.append(config)
    return found


def _sasl_file(
    tree: Tree, service: str, path: str, broken: list[BrokenFile]
) -> Optional[SaslConfig]:
    data = tree.read(path)
    if data is None:
        return SaslConfig(service, path, present=False)
    if isinstance(data, Unreadable):
        return None
    try:
        return parse_sasl(data, path, service)
    except ConfigurationError as error:
        broken.append(BrokenFile(path, error.reason, error.line))
        tree.unreadable[path] = Unreadable(path, f"not judged: {error.reason}")
        return None


def _secret(tree: Tree, secrets: list[FileFacts], path: str, holds: str) -> None:
    facts = tree.facts(path, holds)
    if isinstance(facts, FileFacts) and facts not in secrets[-_RECENT:]:
        secrets.append(facts)


def _fips(tree: Tree, *, live: bool) -> Optional[bool]:
    """Tell whether the host is in FIPS mode; of an unpacked host its boot loader tells."""
    if live:
        # Without the file the kernel knows no such mode.
        return (tree.text("/proc/sys/crypto/fips_enabled") or "0").strip() == "1"
    if tree.exists("/etc/system-fips"):
        return True
    lines = [tree.text("/etc/default/grub") or "", tree.text("/etc/kernel/cmdline") or ""]
    return True if any("fips=1" in text.split("#")[0].split() for text in lines) else None


def _arguments(proc: str = "/proc") -> tuple[Arguments, ...]:
    """Return the command lines of the QEMUs that libvirt started."""
    found = []
    for entry in sorted(name for name in os.listdir(proc) if name.isdigit()):
        path = os.path.join(proc, entry, "cmdline")
        try:
            with open(path, "rb") as stream:
                words = tuple(os.fsdecode(word) for word in stream.read().split(b"\0"))
            uid = os.stat(os.path.join(proc, entry)).st_uid
        except OSError:
            # It ended meanwhile, or is hidden from us.
            continue
        pairs = dict(zip(words, words[1:]))
        if pairs.get("-name", "").startswith("guest=") and "-uuid" in pairs:
            found.append(Arguments(pairs["-uuid"].lower(), path, words, uid))
    return tuple(found)

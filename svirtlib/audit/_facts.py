"""What several rules of ``audit`` need to know, worked out once; finds nothing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cached_property
from typing import Optional

from attr import evolve, frozen

from svirtlib.booleans import Boolean, is_missing
from svirtlib.consolerules import ConsoleUser
from svirtlib.consoles import Console, Exposure, consoles_of_arguments, effective_console
from svirtlib.devices import Devices, Graphics, StorageLink
from svirtlib.filesystems import boolean_for
from svirtlib.findings import Evidence
from svirtlib.guests import Guest, Inventory, Unreadable
from svirtlib.hostconfig import Arguments, Certificate, CertificateStore, HostConfig
from svirtlib.hostpractices import (
    BlockDevice,
    MountEntry,
    OpenPorts,
    Practices,
    classify_by_name,
)
from svirtlib.portuse import MIGRATION_PORTS
from svirtlib.settings import Settings
from svirtlib.storagetypes import is_for_guests
from svirtlib.wording import listed, several

__all__ = ["PROFILES", "AuditFacts", "Seat"]

#: Whom the host is for: some devices are unwise on one and wrong on another.
PROFILES = ("default", "public-cloud", "confidential")

_NO_DEVICES = Devices()


@frozen
class Seat:
    """One console of one guest.

    Attributes:
        guest: the guest.
        console: what the console really is.
        graphics: what the XML says of it; None where only QEMU's arguments tell of it.
        source: what tells it, for evidence.
    """

    guest: Guest
    console: Console
    graphics: Optional[Graphics]
    source: str


def _device_needs(devices: Devices) -> Iterator[tuple[str, str]]:
    """Yield the boolean that a device needs, and what it is."""
    for one in devices.characters:
        if one.type == "dev" and one.element in ("serial", "parallel"):
            yield "virt_use_comm", f"{one.element} port {one.name}"
        if one.element == "smartcard" and one.type == "":
            yield "virt_use_pcscd", "smart card"
    for device in devices.host_devices:
        if device.kind == "usb":
            yield "virt_use_usb", "USB device"
        if device.kind == "pci":
            yield "virt_use_vfio", f"PCI device {device.name}"
            yield "virt_use_sysfs", f"PCI device {device.name}"
    for path in devices.inputs:
        yield "virt_use_evdev", path
    for link in devices.storage:
        if link.protocol == "gluster":
            yield "virt_use_glusterd", link.source
    if "sdl" in devices.displays:
        yield "virt_use_xserver", "SDL window"


def _labelled_for_guests(mount: MountEntry) -> bool:
    """Tell whether files there have a type of storage for guests, which calls for no boolean.

    NFS 4.2 with labels of its own shows ``seclabel`` once it is mounted.
    """
    for option in mount.options.replace('"', "").split(","):
        key, _, value = option.partition("=")
        parts = value.split(":")
        if option == "seclabel" or (
            key == "context" and len(parts) > 2 and is_for_guests(parts[2])
        ):
            return True
    return False


def port_texts(ranges: Iterable[tuple[int, int]]) -> list[str]:
    """Return ranges of ports as texts, such as "22" and "5900-5999"."""
    return [f"{low}-{high}" if low < high else str(low) for low, high in ranges]


class AuditFacts:
    """Guests and a host's configuration with what follows from them.

    Attributes:
        inventory: the guests.
        host: the configuration, or None where none was looked at.
        profile: one of :data:`PROFILES`.
    """

    def __init__(
        self, inventory: Inventory, host: Optional[HostConfig], *, profile: str = "default"
    ) -> None:
        self.inventory = inventory
        self.host = host
        self.profile = profile

    def devices(self, guest: Guest) -> Devices:
        """Return a guest's devices; none where they were not read."""
        return guest.devices or _NO_DEVICES

    @cached_property
    def disks(self) -> tuple[tuple[Guest, StorageLink], ...]:
        """All disks, each with its guest."""
        return tuple(
            (guest, link) for guest in self.inventory.guests for link in self.devices(guest).storage
        )

    def seats_of(self, kind: str) -> Iterator[Seat]:
        """Yield the consoles of a kind: ``vnc`` or ``spice``."""
        return (seat for seat in self.seats if seat.console.type == kind)

    @cached_property
    def conf(self) -> Optional[Settings]:
        """``qemu.conf``; libvirt's defaults without a host, None where it cannot be read."""
        if self.host is None:
            return Settings("libvirt's built-in defaults")
        return self.host.qemu if isinstance(self.host.qemu, Settings) else None

    @cached_property
    def arguments(self) -> dict[str, Arguments]:
        """The command lines of running guests, by their UUID."""
        return {} if self.host is None else {one.uuid: one for one in self.host.arguments}

    @cached_property
    def seats(self) -> tuple[Seat, ...]:
        """The consoles of all guests, as far as they can be known."""
        seats: list[Seat] = []
        conf = self.conf or Settings("")
        dirs = () if self.host is None else self.host.cert_dirs
        for guest in self.inventory.guests:
            graphics = self.devices(guest).graphics
            running = self.arguments.get(guest.uuid or "") if guest.running else None
            if running is not None:
                seats += self._running(guest, graphics, running)
                continue
            for one in graphics:
                console = effective_console(one, conf, running=guest.running, cert_dirs=dirs)
                if self.conf is None and console.from_conf:
                    # That qemu.conf cannot be read is among what is unreadable.
                    continue
                if self.host is not None and console.secure_without_tls:
                    # It does not start, so that nobody reaches it; one rule tells that.
                    console = evolve(console, exposure=Exposure.NONE)
                if one.type == "vnc" and one.password is not None and not one.password.size:
                    # QEMU asks for a password and takes none.
                    console = evolve(console, exposure=Exposure.NONE)
                line = "" if one.line is None else f":{one.line}"
                seats.append(Seat(guest, console, one, f"{guest.source}{line}"))
        return tuple(seats)

    def _running(
        self, guest: Guest, graphics: tuple[Graphics, ...], running: Arguments
    ) -> list[Seat]:
        seats = []
        left = list(graphics)
        for console in consoles_of_arguments(running.words, running.source):
            same = next((one for one in left if one.type == console.type), None)
            if same is not None:
                left.remove(same)
                if console.type == "vnc" and same.password is not None:
                    console = evolve(console, password=True)
            seats.append(Seat(guest, console, same, running.source))
        return seats

    @cached_property
    def settings(self) -> tuple[Settings, ...]:
        """The configuration files of libvirt that could be read."""
        if self.host is None:
            return ()
        both = (self.host.qemu, *self.host.daemons)
        return tuple(one for one in both if isinstance(one, Settings))

    @cached_property
    def practices(self) -> Practices:
        """How the host is set up; all unknown where none was looked at."""
        return Practices() if self.host is None else self.host.practices

    @cached_property
    def certificates(self) -> tuple[tuple[CertificateStore, Certificate], ...]:
        """The certificates in use, the servers' and their authorities'; each file's once."""
        found: dict[tuple[str, str], tuple[CertificateStore, Certificate]] = {}
        for store in () if self.host is None else self.host.stores:
            own = () if store.certificate is None else (store.certificate,)
            for one in (*own, *store.authorities):
                found.setdefault((one.path, one.subject), (store, one))
        return tuple(found.values())

    @cached_property
    def _blocks(self) -> dict[str, BlockDevice]:
        return {one.path: one for one in self.practices.blocks}

    def block(self, path: str) -> BlockDevice:
        """Return what a device is; by its name where the host was not looked at."""
        known = self._blocks.get(path)
        return known or BlockDevice(path, classify_by_name(path), by_name=True)

    @cached_property
    def pci_users(self) -> dict[str, list[Guest]]:
        """The guests that drive each PCI device.

        libvirt takes virtual functions alone for ``<interface type='hostdev'>``.
        """
        users: dict[str, list[Guest]] = {}
        for guest in self.inventory.guests:
            for device in self.devices(guest).host_devices:
                if device.kind == "pci" and device.element != "interface":
                    users.setdefault(device.name, []).append(guest)
        return users

    @cached_property
    def console_ports(self) -> frozenset[int]:
        """The ports that consoles of guests have by their XML."""
        return frozenset(
            port
            for guest in self.inventory.guests
            for one in self.devices(guest).graphics
            for port in (one.port, one.tls_port, one.websocket)
            if port > 0
        )

    @cached_property
    def exposed_ports(self) -> dict[int, list[str]]:
        """The names of the guests whose consoles on the network have each port, now or soon.

        Where libvirt chooses a port, it takes the lowest that is free.
        """
        found: dict[int, list[str]] = {}
        chosen = []
        for seat in self.seats:
            one = seat.graphics
            if one is None or seat.console.exposure not in (Exposure.NETWORK, Exposure.UNKNOWN):
                continue
            ports = {-1 if one.autoport and one.port <= 0 else one.port, one.tls_port}
            for port in sorted({*ports, one.websocket}):
                if port > 0:
                    found.setdefault(port, []).append(seat.guest.name)
            if -1 in ports:
                chosen.append(seat.guest.name)
        low = self._console_range[0]
        for port in range(low, min(low + len(chosen), 65536)):
            found.setdefault(port, []).extend(chosen)
        return found

    @cached_property
    def _console_range(self) -> tuple[int, int]:
        """The ports that libvirt takes for consoles; of its default the first 1024."""
        conf = self.conf or Settings("")
        low = conf.number("remote_display_port_min", 5900)
        return low, conf.number("remote_display_port_max", low + 1023)

    def for_consoles(self, ranges: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
        """Return the parts of ranges of ports that are for consoles.

        One port alone counts if a guest's console on the network has it.
        """
        found = []
        for low, high in ranges:
            own = [port for port in self.exposed_ports if low <= port <= high]
            first = max(low, self._console_range[0])
            last = min(high, self._console_range[1])
            if first < last:
                own += [first, last]
            if own:
                found.append((min(own), max(own)))
        return found

    @property
    def let_in(self) -> Optional[OpenPorts]:
        """What a firewall that drops the rest lets everybody reach; None where there is none.

        A firewall without any policy is told by fw-default-policy.
        """
        return self.practices.open_ports if self.practices.input_filtered else None

    def for_migration(self, ranges: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
        """Return the parts of ranges of ports at which guests that migrate here arrive."""
        conf = self.conf or Settings("")
        least = conf.number("migration_port_min", MIGRATION_PORTS[0])
        most = conf.number("migration_port_max", MIGRATION_PORTS[1])
        cut = [(max(low, least), min(high, most)) for low, high in ranges]
        return [(low, high) for low, high in cut if low <= high]

    @cached_property
    def remote_mounts(self) -> dict[MountEntry, list[tuple[Guest, str]]]:
        """The guests with images on each mount of a network or FUSE file system."""
        mounts: dict[str, MountEntry] = {}
        for mount in self.practices.mounts:
            mounts[mount.target.rstrip("/")] = mount
        found: dict[MountEntry, list[tuple[Guest, str]]] = {}
        for guest in self.inventory.guests:
            for image in guest.images:
                folder = image.path or ""
                while folder.startswith("/") and folder not in mounts:
                    folder = folder.rpartition("/")[0]
                holder = mounts.get(folder)
                if holder is not None and boolean_for(holder.kind) is not None:
                    found.setdefault(holder, []).append((guest, image.path or ""))
        return found

    @cached_property
    def booleans(self) -> dict[str, Boolean]:
        """The booleans of the policy, by name."""
        return {one.name: one for one in self.practices.booleans or ()}

    @cached_property
    def boolean_needs(self) -> dict[str, list[tuple[str, str]]]:
        """For each boolean that guests need: their names, and what for.

        Where a policy lacks one of those that only some have, its rules allow the same without.
        """
        needs: dict[str, list[tuple[str, str]]] = {}
        for mount, uses in self.remote_mounts.items():
            name = boolean_for(mount.kind)
            if name is not None and not _labelled_for_guests(mount):
                for guest, _ in uses:
                    what = f"{mount.kind} at {mount.target}"
                    needs.setdefault(name, []).append((guest.name, what))
        sanlock = self.conf is not None and self.conf.text("lock_manager") == "sanlock"
        for guest in self.inventory.guests:
            wanted = list(_device_needs(self.devices(guest)))
            if guest.virt_type == "qemu" and "virt_use_vfio" in self.booleans:
                # Of the two policies, the one with that boolean asks for execmem too.
                wanted.append(("virt_use_execmem", "TCG"))
            if sanlock:
                wanted.append(("virt_use_sanlock", "lock_manager"))
            for name, what in wanted:
                if name in self.booleans or is_missing(name, self.booleans):
                    needs.setdefault(name, []).append((guest.name, what))
        return needs

    @cached_property
    def console_users(self) -> tuple[ConsoleUser, ...]:
        """The map of consoles to users; empty without one."""
        return () if self.host is None else self.host.console_users or ()

    @cached_property
    def mapped_consoles(self) -> tuple[tuple[Guest, Graphics, ConsoleUser], ...]:
        """The SPICE consoles of guests that the map has."""
        users = {one.guest: one for one in self.console_users}
        return tuple(
            (guest, graphics, users[guest.name])
            for guest in self.inventory.guests
            if guest.name in users
            for graphics in self.devices(guest).graphics
            if graphics.type == "spice" and graphics.listen.type in ("address", "network")
        )

    def remote(self, kind: str) -> Optional[Evidence]:
        """Return what has libvirt's daemon listen on ``tcp`` or ``tls``, or None.

        A socket unit that is enabled does; else libvirtd's switch together with its option
        ``--listen``, while virtproxyd needs the switch alone.
        """
        units = self.practices.units or frozenset()
        for daemon in ("libvirtd", "virtproxyd"):
            unit = f"{daemon}-{kind}.socket"
            if unit in units:
                return Evidence("/etc/systemd/system", f"{unit} is enabled")
        for conf in () if self.host is None else self.host.daemons:
            on = conf.flag(f"listen_{kind}", default=kind == "tls")
            listen = self.practices.listen_option
            if conf.source.endswith("/libvirtd.conf") and on and listen is not None:
                return Evidence(listen.origin, f"--listen, with listen_{kind}")
            proxy = conf.source.endswith("/virtproxyd.conf")
            if proxy and on and conf.has(f"listen_{kind}"):
                return Evidence(conf.where(f"listen_{kind}"), f"listen_{kind} is 1")
        return None

    def _daemon(self, key: str) -> Optional[Settings]:
        """Return the daemon's configuration that sets a key."""
        daemons = () if self.host is None else self.host.daemons
        return next((conf for conf in daemons if conf.has(key)), None)

    def daemon_text(self, key: str) -> Optional[str]:
        """Return a text that one of libvirt's daemons is given, or None."""
        conf = self._daemon(key)
        return None if conf is None else conf.text(key)

    def daemon_flag(self, key: str) -> bool:
        """Tell whether a switch of one of libvirt's daemons is on."""
        conf = self._daemon(key)
        return conf is not None and conf.flag(key)

    def daemon_where(self, key: str) -> Optional[str]:
        """Return the place that sets a key, or None."""
        conf = self._daemon(key)
        return None if conf is None else conf.where(key)

    def service_encrypted(self, service: str) -> bool:
        """Tell whether all consoles of a kind that the network can reach are encrypted."""
        exposed = [
            seat.console
            for seat in self.seats
            if seat.console.type == service and seat.console.exposed
        ]
        return not any(console.plain for console in exposed)

    @cached_property
    def undecided(self) -> tuple[Unreadable, ...]:
        """What rules could only judge on an assumption, or not at all."""
        gaps: list[Unreadable] = []
        if self.host is None:
            assumed = sorted({seat.guest.name for seat in self.seats if seat.console.from_conf})
            if assumed:
                gaps.append(
                    Unreadable(
                        f"consoles of {listed(assumed)}",
                        "qemu.conf decides on their passwords, SASL and TLS, and was not looked "
                        "at; they were judged by libvirt's built-in defaults, and by the passwords "
                        "in the documents, which libvirt leaves out unless it is asked for "
                        "security information; name the host's files with --root",
                    )
                )
        hidden = sorted(
            {
                seat.guest.name
                for seat in self.seats
                if seat.graphics is not None
                and seat.graphics.password_hint
                and seat.console.reachable
            }
        )
        if hidden:
            gaps.append(
                Unreadable(
                    f"passwords of the consoles of {listed(hidden)}",
                    "the XML was written without them, and was judged as if there were one; as "
                    "root they are read from libvirt's own files, and `virsh dumpxml` writes them "
                    "with security information",
                )
            )
        if self.practices.pci is None and self.pci_users and self.profile != "public-cloud":
            gaps.append(
                Unreadable(
                    f"PCI devices {listed(self.pci_users)}",
                    "whether they are virtual functions only /sys of the host tells; run on the "
                    "host",
                )
            )
        absent = {one.address for one in self.practices.pci or () if one.kind == "absent"}
        gone = sorted(absent & {*self.pci_users})
        if gone:
            gaps.append(
                Unreadable(
                    f"PCI devices {listed(gone)}",
                    "guests have them, and the host has none at these addresses now, so that "
                    "nobody can tell what they are",
                )
            )
        unknown = sorted(
            {
                link.source
                for _, link in self.disks
                if link.writable
                and link.type == "block"
                and self.block(link.source).kind == "unknown"
            }
        )
        if unknown:
            gaps.append(
                Unreadable(
                    f"block devices {listed(unknown)}",
                    "whether they are whole disks their names do not tell; run on the host",
                )
            )
        ports = self.let_in
        if ports is not None:
            dark = [*self.for_consoles(ports.undecided), *self.for_migration(ports.undecided)]
            if dark:
                told = listed(port_texts(dark))
                gaps.append(
                    Unreadable(
                        f"whether the firewall opens TCP ports {told} to everybody",
                        f"{ports.origin} does not tell it: {ports.reason}",
                    )
                )
        networks = sorted(
            {seat.guest.name for seat in self.seats if seat.console.exposure is Exposure.UNKNOWN}
        )
        if networks:
            gaps.append(
                Unreadable(
                    f"addresses of the consoles of {listed(networks)}",
                    f"{several(len(networks), 'guest')} listen on a libvirt network, whose "
                    f"address only libvirt knows; judged as if the network could reach them",
                )
            )
        return tuple(gaps)

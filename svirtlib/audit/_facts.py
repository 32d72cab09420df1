"""What several rules of ``audit`` need to know, worked out once; finds nothing."""

from __future__ import annotations

from functools import cached_property
from typing import Optional

from attr import evolve, frozen

from svirtlib.consoles import Console, Exposure, consoles_of_arguments, effective_console
from svirtlib.devices import Devices, Graphics
from svirtlib.guests import Guest, Inventory, Unreadable
from svirtlib.hostconfig import Arguments, Certificate, CertificateStore, HostConfig
from svirtlib.settings import Settings
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
        return tuple(one for one in (self.host.qemu,) if isinstance(one, Settings))

    @cached_property
    def certificates(self) -> tuple[tuple[CertificateStore, Certificate], ...]:
        """The certificates in use, the servers' and their authorities'; each file's once."""
        found: dict[tuple[str, str], tuple[CertificateStore, Certificate]] = {}
        for store in () if self.host is None else self.host.stores:
            own = () if store.certificate is None else (store.certificate,)
            for one in (*own, *store.authorities):
                found.setdefault((one.path, one.subject), (store, one))
        return tuple(found.values())

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
                        "at; they were judged by libvirt's built-in defaults; name the host's "
                        "files with --root",
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

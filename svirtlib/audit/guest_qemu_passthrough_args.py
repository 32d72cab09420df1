"""Arguments that libvirt hands to QEMU without a look."""

from __future__ import annotations

from collections.abc import Iterator

from svirtlib.audit._facts import AuditFacts
from svirtlib.audit._rule import AuditRule, grouped
from svirtlib.findings import Evidence, Finding, Severity
from svirtlib.guests import Guest
from svirtlib.wording import listed

#: Options that open a console, a monitor, a debugger or a device beside libvirt, or take a
#: lock of libvirt's off.
_GRAVE = frozenset(
    {"vnc", "spice", "display", "monitor", "qmp", "qmp-pretty", "mon", "gdb", "s", "incoming"}
    | {"sandbox", "runas", "chroot", "daemonize", "chardev", "serial", "parallel", "netdev"}
    | {"nic", "net", "fsdev", "virtfs", "drive", "blockdev", "hda", "hdb", "cdrom"}
)


class GuestQemuPassthroughArgs(AuditRule):
    """``<qemu:commandline>`` or ``<qemu:override>``: what they do, no other rule sees."""

    ident = "guest-qemu-passthrough-args"
    severity = Severity.HIGH
    summary = "a guest's XML hands arguments to QEMU that libvirt does not look at"
    since = "0.1"

    def run(self, facts: AuditFacts) -> Iterator[Finding]:
        """Yield a finding for each set of options."""
        guests = [
            (guest, _options(facts.devices(guest).arguments), facts.devices(guest).overrides)
            for guest in facts.inventory.guests
        ]
        found: list[tuple[Guest, tuple[str, ...], bool]] = [
            entry for entry in guests if entry[1] or entry[2]
        ]
        for (options, overrides), entries in grouped(
            found, lambda entry: (entry[1], entry[2])
        ).items():
            names = sorted({guest.name for guest, _, _ in entries})
            grave = [name for name in options if name.lstrip("-") in _GRAVE]
            shown = listed(options, shown=6) if options else "overridden properties of devices"
            both = f"{shown} and overridden properties" if options and overrides else shown
            yield self.tell(
                f"QEMU of {listed(names)} gets {both} that libvirt does not look at: SELinux "
                f"labels, consoles and sandbox may not be as the rest of the XML says",
                "take `<qemu:commandline>` and `<qemu:override>` out, and have libvirt do it where "
                "it can; what stays has to be judged by hand",
                guests=names,
                severity=Severity.HIGH if grave else Severity.LOW,
                evidence=[
                    Evidence(guest.source, f"{guest.name}: {both}") for guest, _, _ in entries
                ],
            )


def _options(arguments: tuple[str, ...]) -> tuple[str, ...]:
    """Return the names of options alone: a value may be a secret."""
    return tuple(
        sorted({text.partition("=")[0][:40] for text in arguments if text.startswith("-")})
    )

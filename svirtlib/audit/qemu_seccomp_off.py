"""QEMU without its system call filter."""

from __future__ import annotations

from collections.abc import Iterator

from svirtlib.audit._facts import AuditFacts
from svirtlib.audit._rule import AuditRule, Need
from svirtlib.findings import Evidence, Finding, Severity
from svirtlib.wording import listed


class QemuSeccompOff(AuditRule):
    """``seccomp_sandbox = 0``, or a running QEMU that was started without its sandbox."""

    ident = "qemu-seccomp-off"
    severity = Severity.HIGH
    summary = "QEMU runs without the filter of system calls"
    since = "0.1"
    needs = frozenset({Need.CONFIG})

    def run(self, facts: AuditFacts) -> Iterator[Finding]:
        """Yield a finding for the configuration, and one for guests that run so."""
        remedy = (
            "take seccomp_sandbox out of /etc/libvirt/qemu.conf, or set it to 1, and start the "
            "guests anew"
        )
        conf = facts.conf
        if conf is not None and conf.number("seccomp_sandbox", -1) == 0:
            yield self.tell(
                "seccomp_sandbox is 0: a QEMU that a guest takes over may use every system call",
                remedy,
                paths=[conf.source],
                evidence=(Evidence(conf.where("seccomp_sandbox"), "it is 0"),),
            )
        elif facts.arguments:
            found = [
                (guest, facts.arguments[guest.uuid or ""])
                for guest in facts.inventory.guests
                if guest.running and (guest.uuid or "") in facts.arguments
            ]
            off = [(guest, one) for guest, one in found if not _sandboxed(one.words)]
            if off:
                names = [guest.name for guest, _ in off]
                yield self.tell(
                    f"QEMU of {listed(names)} was started without its sandbox",
                    remedy,
                    guests=names,
                    evidence=[Evidence(one.source, guest.name) for guest, one in off],
                )


def _sandboxed(words: tuple[str, ...]) -> bool:
    values = [value for name, value in zip(words, words[1:]) if name == "-sandbox"]
    return bool(values) and values[-1].partition(",")[0] in ("on", "enable=on")

"""Devices that every guest may open."""

from __future__ import annotations

from collections.abc import Iterator

from svirtlib.audit._facts import AuditFacts
from svirtlib.audit._rule import AuditRule, Need
from svirtlib.findings import Evidence, Finding, Severity
from svirtlib.wording import listed

#: libvirt's own list, with what older ones had.
_USUAL = frozenset(
    f"/dev/{name}"
    for name in ("null", "full", "zero", "random", "urandom", "ptmx", "kvm", "kqemu", "rtc", "hpet")
)
#: For a purpose that needs them in all guests.
_KNOWN = ("/dev/infiniband/", "/dev/sgx_", "/dev/udmabuf", "/dev/vfio/vfio", "/dev/net/tun")


class QemuCgroupAclWide(AuditRule):
    """``cgroup_device_acl`` lets every guest open devices that libvirt would give to none."""

    ident = "qemu-cgroup-acl-wide"
    severity = Severity.HIGH
    summary = "every guest may open devices beyond those that QEMU needs"
    since = "0.1"
    needs = frozenset({Need.CONFIG})

    def run(self, facts: AuditFacts) -> Iterator[Finding]:
        """Yield one finding for the list, and one where it is not enforced at all."""
        conf = facts.conf
        if conf is None:
            return
        controllers = conf.texts("cgroup_controllers")
        if controllers is not None and "devices" not in controllers:
            yield self.tell(
                "cgroup_controllers leaves out devices: nothing but labels and modes keeps QEMU "
                "from opening any device",
                "take cgroup_controllers out of /etc/libvirt/qemu.conf, or put devices into it",
                paths=[conf.source],
                evidence=(Evidence(conf.where("cgroup_controllers"), " ".join(controllers)),),
            )
        extra = sorted({*(conf.texts("cgroup_device_acl") or ())} - _USUAL)
        if extra:
            known = all(path.startswith(_KNOWN) for path in extra)
            yield self.tell(
                f"cgroup_device_acl lets every guest open {listed(extra)}",
                "take them out of cgroup_device_acl in /etc/libvirt/qemu.conf, and give a device "
                "to the guest that needs it, in its XML",
                severity=Severity.LOW if known else Severity.HIGH,
                paths=extra,
                evidence=(Evidence(conf.where("cgroup_device_acl"), " ".join(extra)),),
            )

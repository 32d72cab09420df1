"""The rules of ``svirt-label audit``: guests and a host's configuration in, a report out.

They judge what labels do not: consoles, devices, and how the host is set up. A rule is one
module with one class, listed in :data:`ALL_RULES`; like those of ``check``, none reads the
system, and an exception inside one is not caught.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Optional

from svirtlib.audit._facts import PROFILES, AuditFacts
from svirtlib.audit._rule import AuditRule, Need
from svirtlib.audit.auditd_not_running import AuditdNotRunning
from svirtlib.audit.chardev_network_plain import ChardevNetworkPlain
from svirtlib.audit.cloud_no_passthrough import CloudNoPassthrough
from svirtlib.audit.conf_duplicate_key import ConfDuplicateKey
from svirtlib.audit.conf_parse import ConfParse
from svirtlib.audit.conf_unknown_key import ConfUnknownKey
from svirtlib.audit.console_port_autoport import ConsolePortAutoport
from svirtlib.audit.console_port_mismatch import ConsolePortMismatch
from svirtlib.audit.console_user_firewall import ConsoleUserFirewall
from svirtlib.audit.console_user_firewall_boot import ConsoleUserFirewallBoot
from svirtlib.audit.console_user_map import ConsoleUserMap
from svirtlib.audit.fw_console_range import FwConsoleRange
from svirtlib.audit.fw_default_policy import FwDefaultPolicy
from svirtlib.audit.fw_migration_range import FwMigrationRange
from svirtlib.audit.fw_not_at_boot import FwNotAtBoot
from svirtlib.audit.graphics_listen_wildcard import GraphicsListenWildcard
from svirtlib.audit.graphics_password_no_expiry import GraphicsPasswordNoExpiry
from svirtlib.audit.graphics_password_shared import GraphicsPasswordShared
from svirtlib.audit.graphics_password_weak import GraphicsPasswordWeak
from svirtlib.audit.graphics_secret_in_file import GraphicsSecretInFile
from svirtlib.audit.guest_disk_not_encrypted import GuestDiskNotEncrypted
from svirtlib.audit.guest_host_device_shared import GuestHostDeviceShared
from svirtlib.audit.guest_qemu_passthrough_args import GuestQemuPassthroughArgs
from svirtlib.audit.guest_whole_disk_rw import GuestWholeDiskRw
from svirtlib.audit.host_mount_by_label import HostMountByLabel
from svirtlib.audit.host_services import HostServices
from svirtlib.audit.hostdev_physical_function import HostdevPhysicalFunction
from svirtlib.audit.hostdev_relaxed_acs import HostdevRelaxedAcs
from svirtlib.audit.hostdev_usb import HostdevUsb
from svirtlib.audit.ip_forward_state import IpForwardState
from svirtlib.audit.libvirt_audit_off import LibvirtAuditOff
from svirtlib.audit.libvirt_polkit_open import LibvirtPolkitOpen
from svirtlib.audit.libvirt_rw_socket_open import LibvirtRwSocketOpen
from svirtlib.audit.libvirt_tcp_cleartext import LibvirtTcpCleartext
from svirtlib.audit.libvirt_tls_no_verify import LibvirtTlsNoVerify
from svirtlib.audit.lvm_filter_missing import LvmFilterMissing
from svirtlib.audit.qemu_cgroup_acl_wide import QemuCgroupAclWide
from svirtlib.audit.qemu_core_dump_ram import QemuCoreDumpRam
from svirtlib.audit.qemu_default_unconfined import QemuDefaultUnconfined
from svirtlib.audit.qemu_namespaces_off import QemuNamespacesOff
from svirtlib.audit.qemu_runs_as_root import QemuRunsAsRoot
from svirtlib.audit.qemu_seccomp_off import QemuSeccompOff
from svirtlib.audit.qemu_security_driver_none import QemuSecurityDriverNone
from svirtlib.audit.qemu_user_shared import QemuUserShared
from svirtlib.audit.sasl_config_missing import SaslConfigMissing
from svirtlib.audit.sasl_keytab import SaslKeytab
from svirtlib.audit.sasl_mech_weak import SaslMechWeak
from svirtlib.audit.sasl_needs_tls import SaslNeedsTls
from svirtlib.audit.sasl_sasldb import SaslSasldb
from svirtlib.audit.secret_file_mode import SecretFileMode
from svirtlib.audit.selinux_boolean_excess import SelinuxBooleanExcess
from svirtlib.audit.selinux_boolean_missing import SelinuxBooleanMissing
from svirtlib.audit.selinux_boolean_not_persistent import SelinuxBooleanNotPersistent
from svirtlib.audit.selinux_boolean_unknown import SelinuxBooleanUnknown
from svirtlib.audit.selinux_not_enforcing import SelinuxNotEnforcing
from svirtlib.audit.selinux_port_type import SelinuxPortType
from svirtlib.audit.spice_channel_insecure import SpiceChannelInsecure
from svirtlib.audit.spice_cleartext_exposed import SpiceCleartextExposed
from svirtlib.audit.spice_clipboard import SpiceClipboard
from svirtlib.audit.spice_no_ticket import SpiceNoTicket
from svirtlib.audit.spice_secure_without_tls import SpiceSecureWithoutTls
from svirtlib.audit.spice_tls_verify_noop import SpiceTlsVerifyNoop
from svirtlib.audit.spice_usb_redir import SpiceUsbRedir
from svirtlib.audit.ssh_root_shared import SshRootShared
from svirtlib.audit.storage_ceph_no_auth import StorageCephNoAuth
from svirtlib.audit.storage_http_plain import StorageHttpPlain
from svirtlib.audit.storage_iscsi_no_chap import StorageIscsiNoChap
from svirtlib.audit.storage_nbd_plain import StorageNbdPlain
from svirtlib.audit.storage_nfs_sec import StorageNfsSec
from svirtlib.audit.sudoers_broad_command import SudoersBroadCommand
from svirtlib.audit.sudoers_file import SudoersFile
from svirtlib.audit.sudoers_runas import SudoersRunas
from svirtlib.audit.sudoers_wildcard_argument import SudoersWildcardArgument
from svirtlib.audit.vfio_unsafe_interrupts import VfioUnsafeInterrupts
from svirtlib.audit.viewer_binary_drift import ViewerBinaryDrift
from svirtlib.audit.vnc_auto_unix_socket_inert import VncAutoUnixSocketInert
from svirtlib.audit.vnc_no_auth import VncNoAuth
from svirtlib.audit.vnc_password_exposed import VncPasswordExposed
from svirtlib.audit.vnc_password_fips import VncPasswordFips
from svirtlib.audit.vnc_password_truncated import VncPasswordTruncated
from svirtlib.audit.vnc_tls_peer_verify import VncTlsPeerVerify
from svirtlib.audit.x509_ca_key_on_host import X509CaKeyOnHost
from svirtlib.audit.x509_chain import X509Chain
from svirtlib.audit.x509_expired import X509Expired
from svirtlib.audit.x509_hostname import X509Hostname
from svirtlib.audit.x509_key_mismatch import X509KeyMismatch
from svirtlib.audit.x509_key_usage import X509KeyUsage
from svirtlib.audit.x509_missing import X509Missing
from svirtlib.audit.x509_weak_key import X509WeakKey
from svirtlib.booleans import BooleanPlan, plan_booleans
from svirtlib.engine import Selection, select_rules
from svirtlib.errors import BackendUnavailableError
from svirtlib.findings import Finding, NotRun, Report
from svirtlib.guests import Inventory
from svirtlib.hostconfig import HostConfig

__all__ = [
    "ALL_RULES",
    "PROFILES",
    "AuditRule",
    "Need",
    "plan_for_guests",
    "run_audit",
    "select_audit_rules",
]

#: Where that is written which decides on booleans.
_NEEDED_BY_BOOLEANS = (
    "/etc/fstab",
    "/etc/libvirt/qemu",
    "/etc/selinux/",
    "/proc/self/mounts",
    "/run/libvirt/qemu",
    "/sys/fs/selinux/",
)

#: Every rule, the worst first; within a severity by name.
ALL_RULES: tuple[AuditRule, ...] = (
    ConfParse(),
    GuestHostDeviceShared(),
    LibvirtRwSocketOpen(),
    LibvirtTlsNoVerify(),
    QemuRunsAsRoot(),
    QemuSecurityDriverNone(),
    SpiceNoTicket(),
    VncNoAuth(),
    ChardevNetworkPlain(),
    CloudNoPassthrough(),
    ConsolePortMismatch(),
    ConsoleUserFirewall(),
    ConsoleUserFirewallBoot(),
    FwDefaultPolicy(),
    FwNotAtBoot(),
    GraphicsPasswordShared(),
    GraphicsSecretInFile(),
    GuestDiskNotEncrypted(),
    GuestQemuPassthroughArgs(),
    GuestWholeDiskRw(),
    HostMountByLabel(),
    HostdevPhysicalFunction(),
    HostdevRelaxedAcs(),
    LibvirtAuditOff(),
    LibvirtPolkitOpen(),
    LibvirtTcpCleartext(),
    QemuCgroupAclWide(),
    QemuDefaultUnconfined(),
    QemuSeccompOff(),
    SaslConfigMissing(),
    SaslMechWeak(),
    SaslNeedsTls(),
    SecretFileMode(),
    SelinuxNotEnforcing(),
    SpiceChannelInsecure(),
    SpiceCleartextExposed(),
    StorageNbdPlain(),
    SudoersBroadCommand(),
    SudoersFile(),
    SudoersRunas(),
    SudoersWildcardArgument(),
    VfioUnsafeInterrupts(),
    ViewerBinaryDrift(),
    VncPasswordExposed(),
    VncPasswordFips(),
    X509CaKeyOnHost(),
    X509Chain(),
    X509Expired(),
    X509KeyMismatch(),
    X509Missing(),
    X509WeakKey(),
    AuditdNotRunning(),
    ConfDuplicateKey(),
    ConfUnknownKey(),
    ConsolePortAutoport(),
    ConsoleUserMap(),
    FwConsoleRange(),
    FwMigrationRange(),
    GraphicsListenWildcard(),
    GraphicsPasswordWeak(),
    HostdevUsb(),
    LvmFilterMissing(),
    QemuCoreDumpRam(),
    QemuNamespacesOff(),
    QemuUserShared(),
    SaslKeytab(),
    SelinuxBooleanMissing(),
    SelinuxPortType(),
    SpiceSecureWithoutTls(),
    SpiceTlsVerifyNoop(),
    SshRootShared(),
    StorageCephNoAuth(),
    StorageHttpPlain(),
    StorageIscsiNoChap(),
    VncTlsPeerVerify(),
    X509Hostname(),
    X509KeyUsage(),
    GraphicsPasswordNoExpiry(),
    HostServices(),
    IpForwardState(),
    SaslSasldb(),
    SelinuxBooleanExcess(),
    SelinuxBooleanNotPersistent(),
    SpiceUsbRedir(),
    StorageNfsSec(),
    VncAutoUnixSocketInert(),
    VncPasswordTruncated(),
    SelinuxBooleanUnknown(),
    SpiceClipboard(),
)


def select_audit_rules(only: Collection[str] = ()) -> tuple[AuditRule, ...]:
    """Return the rules with these identifiers, or all of them if none is given.

    Raises:
        SelectionError: an identifier is of no rule.
    """
    return select_rules(ALL_RULES, only, "audit")


def run_audit(
    inventory: Inventory,
    host: Optional[HostConfig] = None,
    rules: Sequence[AuditRule] = ALL_RULES,
    *,
    profile: str = "default",
    guests: Collection[str] = (),
    ignore: Iterable[tuple[str, str]] = (),
) -> Report:
    """Judge guests and the configuration of their host.

    Args:
        inventory: the guests, with their devices.
        host: the configuration, or None where none was looked at: rules about it are not run,
            and guests are judged by libvirt's defaults, which makes the report incomplete.
        rules: the rules to run.
        profile: one of :data:`PROFILES`.
        guests: names or UUIDs; only findings that touch one of these guests are kept. Empty:
            all.
        ignore: pairs of a rule and a guest's name (empty: any guest) whose findings are
            counted but not listed.

    Raises:
        SelectionError: a rule or a guest does not exist.
    """
    selection = Selection.make(inventory, ALL_RULES, guests=guests, ignore=ignore, verb="audit")
    facts = AuditFacts(inventory, host, profile=profile)
    missing = _missing(facts)
    findings: list[Finding] = []
    not_run: list[NotRun] = []
    for rule in rules:
        lacking = [need for need in Need if need in rule.needs and need in missing]
        if lacking:
            reason = Need.CONFIG if host is None else lacking[0]
            not_run.append(NotRun(rule.ident, reason.value))
        else:
            findings.extend(rule.run(facts))
    gaps = () if host is None else host.unreadable
    return selection.report(findings, (*inventory.unreadable, *gaps, *facts.undecided), not_run)


def plan_for_guests(
    inventory: Inventory,
    host: HostConfig,
    *,
    guests: Collection[str] = (),
    turn_off: bool = False,
) -> BooleanPlan:
    """Return which SELinux booleans guests need, and which would have to change for that.

    Args:
        inventory: the guests, with their devices.
        host: the configuration of their host.
        guests: names or UUIDs; only what one of them needs is turned on. Empty: all.
        turn_off: turn those off that are on without need; not done where some guest or mount
            could not be looked at, as it may be what needs them.

    Raises:
        SelectionError: a guest does not exist.
        BackendUnavailableError: no policy of the host could be asked.
    """
    chosen = Selection.make(inventory, ALL_RULES, guests=guests, ignore=(), verb="audit")
    facts = AuditFacts(inventory, host)
    gaps = [*inventory.unreadable]
    gaps += [gap for gap in host.unreadable if gap.what.startswith(_NEEDED_BY_BOOLEANS)]
    if facts.practices.booleans is None:
        told = "".join(f"; {gap.what}: {gap.reason}" for gap in gaps)
        raise BackendUnavailableError(
            f"no policy of the host could be asked for its booleans{told}; install one (Debian: "
            f"selinux-policy-default, Fedora: selinux-policy-targeted), or name another --root"
        )
    notes = []
    if turn_off and gaps:
        turn_off = False
        notes.append("nothing is turned off, as what could not be read may need it")
    return BooleanPlan(
        plan_booleans(
            facts.practices.booleans, facts.boolean_needs, guests=chosen.wanted, turn_off=turn_off
        ),
        tuple(notes),
        tuple((gap.what, gap.reason) for gap in gaps),
    )


def _missing(facts: AuditFacts) -> set[Need]:
    practices = facts.practices
    known = {
        Need.CONFIG: facts.host is not None,
        Need.UNITS: practices.units is not None,
        Need.SELINUX: practices.selinux is not None,
        Need.BOOLEANS: practices.booleans is not None,
        Need.PORTS: practices.ports_denied is not None,
        Need.RULESET: practices.input_filtered is not None,
        Need.MAP: facts.host is not None and facts.host.console_users is not None,
        Need.OWNER_RULES: practices.owner_rules is not None,
        Need.SUDOERS: practices.sudo is not None,
        Need.SOCKETS: practices.listening is not None,
    }
    return {need for need, is_known in known.items() if not is_known}

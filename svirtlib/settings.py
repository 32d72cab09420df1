"""What libvirt makes of the keys of its configuration files: types, defaults, unknown keys.

The types are those that libvirt 9.0 asks of each key (``qemu_conf.c``,
``remote_daemon_config.c``); a value of another type stops the daemon's driver. Keys that
libvirt does not ask for are accepted by it in silence.
"""

from __future__ import annotations

import enum
from typing import Optional, Union

from attr import field, frozen

from svirtlib.errors import ConfigurationError
from svirtlib.virconf import Entry, Value, VirConf

__all__ = [
    "DAEMON_KEYS",
    "OBSOLETE_KEYS",
    "QEMU_KEYS",
    "Kind",
    "Secret",
    "Settings",
    "read_settings",
]


class Kind(enum.Enum):
    """The type that libvirt asks of a value; the text says what is legal."""

    BOOL = "0 or 1"
    UINT = "a number, not negative"
    INT = "a number"
    STRING = "a quoted string"
    STRINGS = "a list of quoted strings"
    STRING_OR_STRINGS = "a quoted string, or a list of them"
    STRING_OR_UINT = "a quoted string, or a number"
    SECRET = "a quoted string "  # noqa: S105 - a kind of value, and told like a string


@frozen(repr=False)
class Secret:
    """A password in memory: to compare and to measure, never to show.

    It has no text form, and cannot be pickled or put into a document.
    """

    _text: str = field(eq=True)

    def __repr__(self) -> str:
        return "<secret>"

    __str__ = __repr__

    def __getstate__(self) -> object:
        raise TypeError("a secret is not written anywhere")

    @property
    def size(self) -> int:
        """Its length in bytes, which is what VNC counts."""
        return len(self._text.encode("utf-8", "surrogateescape"))

    def is_one_of(self, *texts: str) -> bool:
        """Tell whether it is one of these well-known texts, in whatever case."""
        return self._text.casefold() in {text.casefold() for text in texts}


_Setting = Union[int, str, "tuple[str, ...]", Secret]


def _kinds(**kinds: str) -> dict[str, Kind]:
    return {key: Kind[kind] for kind, keys in kinds.items() for key in keys.split()}


#: Every key that libvirt up to 11 asks of ``qemu.conf``, with its type.
QEMU_KEYS = _kinds(
    BOOL="""default_tls_x509_verify vnc_auto_unix_socket vnc_tls vnc_tls_x509_verify vnc_sasl
        vnc_allow_host_audio nographics_allow_host_audio spice_tls spice_sasl
        spice_auto_unix_socket vxhs_tls nbd_tls chardev_tls migrate_tls_force
        chardev_tls_x509_verify migrate_tls_x509_verify backup_tls_x509_verify
        auto_dump_bypass_cache auto_start_bypass_cache set_process_name dump_guest_core
        mac_filter relaxed_acs_check allow_disk_format_probing log_timestamp
        security_default_confined security_require_confined dynamic_ownership remember_owner
        virtiofsd_debug storage_use_nbdkit""",
    UINT="""remote_websocket_port_min remote_websocket_port_max remote_display_port_min
        remote_display_port_max max_processes max_files max_threads_per_process max_queued
        keepalive_count migration_port_min migration_port_max gluster_debug_level
        auto_shutdown_wait""",
    INT="keepalive_interval seccomp_sandbox",
    STRING="""default_tls_x509_cert_dir default_tls_x509_secret_uuid vnc_tls_x509_cert_dir
        vnc_tls_x509_secret_uuid vnc_listen vnc_sasl_dir spice_tls_x509_cert_dir spice_sasl_dir
        spice_listen chardev_tls_x509_cert_dir chardev_tls_x509_secret_uuid
        migrate_tls_x509_cert_dir migrate_tls_x509_secret_uuid backup_tls_x509_cert_dir
        backup_tls_x509_secret_uuid vxhs_tls_x509_cert_dir vxhs_tls_x509_secret_uuid
        nbd_tls_x509_cert_dir nbd_tls_x509_secret_uuid save_image_format dump_image_format
        snapshot_image_format auto_dump_path bridge_helper pr_helper slirp_helper dbus_daemon
        stdio_handler sched_core lock_manager migration_host migration_address
        deprecation_behavior user group memory_backing_dir swtpm_user swtpm_group
        shared_filesystems_dir migrate_tls_priority vnc_tls_priority chardev_tls_priority
        nbd_tls_priority backup_tls_priority auto_shutdown_try_save auto_shutdown_try_shutdown
        auto_shutdown_poweroff""",
    SECRET="vnc_password spice_password",  # noqa: S106 - names of keys
    STRINGS="""nvram cgroup_controllers cgroup_device_acl namespaces capability_filters
        shared_filesystems""",
    STRING_OR_STRINGS="security_driver hugetlbfs_mount",
    STRING_OR_UINT="max_core",
)

#: Keys that libvirt once asked for and now passes over.
OBSOLETE_KEYS = frozenset({"clear_emulator_capabilities"})

#: Every key that libvirt asks of ``libvirtd.conf``, ``virtqemud.conf`` and ``virtproxyd.conf``.
DAEMON_KEYS = _kinds(
    BOOL="""listen_tcp listen_tls tls_no_sanity_certificate tls_no_verify_certificate
        audit_logging mdns_adv keepalive_required admin_keepalive_required""",
    UINT="""tcp_min_ssf min_workers max_workers max_clients max_queued_clients
        max_anonymous_clients prio_workers max_client_requests admin_min_workers
        admin_max_workers admin_max_clients admin_max_queued_clients admin_max_client_requests
        audit_level log_level log_buffer_size keepalive_count admin_keepalive_count
        ovs_timeout""",
    INT="keepalive_interval admin_keepalive_interval",
    STRING="""tls_port tcp_port listen_addr unix_sock_group unix_sock_admin_perms
        unix_sock_ro_perms unix_sock_rw_perms unix_sock_dir key_file cert_file ca_file crl_file
        tls_priority host_uuid host_uuid_source log_filters log_outputs auth_unix_ro
        auth_unix_rw auth_tcp auth_tls mdns_name""",
    STRINGS="access_drivers tls_allowed_dn_list sasl_allowed_username_list",
)


@frozen
class Settings:
    """A configuration file with the types that libvirt gives its values.

    Attributes:
        source: the file, for messages.
        present: whether there is one; without it all values are libvirt's defaults.
        given: the keys that it sets, with their values.
        lines: where it sets them.
        unknown: keys that libvirt does not ask for, with their lines.
        repeated: keys that an earlier line has set already, with their lines; without effect.
    """

    source: str
    present: bool = False
    given: tuple[tuple[str, _Setting], ...] = field(default=(), repr=False)
    lines: tuple[tuple[str, int], ...] = ()
    unknown: tuple[tuple[str, int], ...] = ()
    repeated: tuple[tuple[str, int], ...] = ()

    def _get(self, key: str) -> Optional[_Setting]:
        for name, value in self.given:
            if name == key:
                return value
        return None

    def flag(self, key: str, default: bool = False) -> bool:
        """Return a switch."""
        value = self._get(key)
        return default if value is None else bool(value)

    def number(self, key: str, default: int) -> int:
        """Return a number."""
        value = self._get(key)
        return value if isinstance(value, int) else default

    def text(self, key: str) -> Optional[str]:
        """Return a text, or None where it is not set."""
        value = self._get(key)
        return value if isinstance(value, str) else None

    def texts(self, key: str) -> Optional[tuple[str, ...]]:
        """Return a list of texts, or None where it is not set."""
        value = self._get(key)
        return value if isinstance(value, tuple) else None

    def secret(self, key: str) -> Optional[Secret]:
        """Return a password, or None where it is not set."""
        value = self._get(key)
        return value if isinstance(value, Secret) else None

    def has(self, key: str) -> bool:
        """Tell whether the file sets a key."""
        return self._get(key) is not None

    def where(self, key: str) -> str:
        """Return the file and the line that sets a key, or says that none does."""
        line = dict(self.lines).get(key)
        if line is not None:
            return f"{self.source}:{line}"
        return f"{self.source} does not set it" if self.present else f"no {self.source}"


def read_settings(conf: VirConf, kinds: dict[str, Kind]) -> Settings:
    """Return the values of a file as libvirt takes them.

    Raises:
        ConfigurationError: a value has a type that libvirt refuses.
    """
    repeated = conf.repeated()
    effective = [entry for entry in conf.entries if entry not in repeated]
    known = [entry for entry in effective if entry.key in kinds]
    return Settings(
        source=conf.source,
        present=True,
        given=tuple((entry.key, _typed(entry, kinds[entry.key], conf.source)) for entry in known),
        lines=tuple((entry.key, entry.line) for entry in effective),
        unknown=tuple((entry.key, entry.line) for entry in effective if entry.key not in kinds),
        repeated=tuple((entry.key, entry.line) for entry in repeated),
    )


def _typed(entry: Entry, kind: Kind, source: str) -> _Setting:
    value = entry.value
    if isinstance(value, int):
        if kind is Kind.BOOL and value in (0, 1) and not entry.negative:
            return value
        if kind is Kind.INT or (kind in (Kind.UINT, Kind.STRING_OR_UINT) and not entry.negative):
            return value
    elif isinstance(value, str):
        if kind is Kind.SECRET:
            return Secret(value)
        if kind in (Kind.STRING, Kind.STRING_OR_UINT):
            return value
        if kind is Kind.STRING_OR_STRINGS:
            return (value,)
    elif kind in (Kind.STRINGS, Kind.STRING_OR_STRINGS):
        texts = _texts(value)
        if texts is not None:
            return texts
    raise ConfigurationError(
        source, f"{entry.key} takes {kind.value.strip()}; libvirt refuses the file", entry.line
    )


def _texts(value: tuple[Value, ...]) -> Optional[tuple[str, ...]]:
    texts = tuple(item for item in value if isinstance(item, str))
    return texts if len(texts) == len(value) else None

"""What a host's configuration says, as values; ``svirtlib.backends`` reads it into them.

A value of None, where a type allows it, means that there is no such file. What could not be
read is an :class:`~svirtlib.guests.Unreadable` in :attr:`HostConfig.unreadable`, and stands
here as ``UNKNOWN``.
"""

from __future__ import annotations

import datetime as dt
import enum
from typing import Optional, Union

from attr import frozen

from svirtlib.consolerules import ConsoleUser
from svirtlib.guests import Unreadable
from svirtlib.hostpractices import Practices
from svirtlib.settings import Settings

__all__ = [
    "UNKNOWN",
    "Account",
    "Arguments",
    "BrokenFile",
    "Certificate",
    "CertificateStore",
    "FileFacts",
    "HostConfig",
    "SaslConfig",
    "Unknown",
]


class Unknown(enum.Enum):
    """The type of what could not be read; why stands among what is unreadable."""

    UNKNOWN = "unknown"


UNKNOWN = Unknown.UNKNOWN
_NO_PRACTICES = Practices()


@frozen
class FileFacts:
    """Who owns a file, and who may use it.

    Attributes:
        path: where it is on the host.
        mode: its permission bits.
        uid: number of its owner.
        gid: number of its group.
        open_parent: a folder above it that everybody may write to, or None.
        holds: what makes it a secret, for messages: ``the private key of VNC``.
    """

    path: str
    mode: int
    uid: int
    gid: int
    open_parent: Optional[str] = None
    holds: str = ""


@frozen
class Account:
    """A user of the host's own user database.

    Attributes:
        name: the user's name.
        uid: number.
        gid: number of the primary group.
        shell: what is started at a login.
    """

    name: str
    uid: int
    gid: int
    shell: str = ""


@frozen
class SaslConfig:
    """A file like ``/etc/sasl2/qemu.conf``, as Cyrus SASL reads it.

    Attributes:
        service: whose it is: ``vnc``, ``spice`` or ``libvirt``.
        path: the file.
        present: whether there is one.
        mechanisms: names in lower case, or None where the file does not limit them.
        keytab: path of the Kerberos keys, or None.
        sasldb: path of the passwords, or None.
        keytab_exists: whether that file exists; None where it was not looked at.
    """

    service: str
    path: str
    present: bool = True
    mechanisms: Optional[tuple[str, ...]] = None
    keytab: Optional[str] = None
    sasldb: Optional[str] = None
    keytab_exists: Optional[bool] = None


@frozen
class Certificate:
    """A certificate, without anything secret.

    Attributes:
        path: the file.
        subject: whom it is for.
        not_before: when it becomes valid, in UTC.
        not_after: when it ceases to be, in UTC.
        key: kind of its key: ``RSA``, ``EC``, ``DSA``, ``Ed25519``, ...
        bits: length of the key.
        digest: the signature's hash (``sha256``), or None for signatures without one.
        authority: it may issue certificates; None where it does not say.
        server: it may serve TLS (extended key usage); True where it sets no limit.
        names: DNS names and addresses that it holds for.
        common_name: the old place of the name, or None.
        self_signed: its issuer is its own subject.
    """

    path: str
    subject: str
    not_before: dt.datetime
    not_after: dt.datetime
    key: str
    bits: int
    digest: Optional[str]
    authority: Optional[bool]
    server: bool
    names: tuple[str, ...]
    common_name: Optional[str]
    self_signed: bool


@frozen
class CertificateStore:
    """The certificates of one service.

    Attributes:
        service: ``vnc``, ``spice``, ``libvirt``, ...
        directory: where they lie.
        missing: files that the service needs and that do not exist.
        broken: files that are no certificate or key, with the reason.
        authorities: certificates of ``ca-cert.pem``.
        certificate: the server's.
        key_matches: the private key is that of the certificate; None where not known.
        issued: one of the authorities has signed it; None where not known.
        authority_key: a private key of an authority that lies beside them, or None.
    """

    service: str
    directory: str
    missing: tuple[str, ...] = ()
    broken: tuple[tuple[str, str], ...] = ()
    authorities: tuple[Certificate, ...] = ()
    certificate: Optional[Certificate] = None
    key_matches: Optional[bool] = None
    issued: Optional[bool] = None
    authority_key: Optional[str] = None


@frozen
class BrokenFile:
    """A configuration file that its reader refuses.

    Attributes:
        path: the file.
        reason: what is wrong with it.
        line: where, counted from 1, if it is known.
    """

    path: str
    reason: str
    line: Optional[int] = None


@frozen
class Arguments:
    """The command line of a running QEMU.

    Attributes:
        uuid: of its guest.
        source: where it was seen.
        words: the arguments.
        uid: the user that it runs as, or None where not known.
    """

    uuid: str
    source: str
    words: tuple[str, ...]
    uid: Optional[int] = None


@frozen
class HostConfig:
    """What the configuration of one host says.

    Attributes:
        root: the folder that was looked at; ``/`` for this machine.
        live: it is this machine, so that its kernel and processes were looked at too.
        now: when it was looked at, in UTC.
        qemu: ``qemu.conf``.
        names: the host's own names.
        accounts: the users of its database.
        qemu_user: the user that QEMU runs as, or None where that is not known.
        qemu_group: number of its group, or None.
        broken: configuration files that their readers refuse.
        sasl: SASL configurations that are in use.
        stores: certificates that are in use.
        secrets: files with secrets.
        cert_dirs: the folders for certificates that exist under ``/etc/pki``.
        fips: the kernel runs in FIPS mode; None where not known.
        daemons: configuration of libvirt's daemons, those that could be read.
        practices: how the host is set up beside consoles.
        sudoers: who may write the files of sudoers, and their folder.
        console_users: the map of consoles to users, or None without one.
        arguments: of running QEMUs.
        unreadable: what could not be read.
    """

    root: str
    live: bool
    now: dt.datetime
    qemu: Union[Settings, Unknown]
    names: tuple[str, ...] = ()
    accounts: tuple[Account, ...] = ()
    qemu_user: Optional[Account] = None
    qemu_group: Optional[int] = None
    broken: tuple[BrokenFile, ...] = ()
    sasl: tuple[SaslConfig, ...] = ()
    stores: tuple[CertificateStore, ...] = ()
    secrets: tuple[FileFacts, ...] = ()
    cert_dirs: tuple[str, ...] = ()
    fips: Optional[bool] = None
    daemons: tuple[Settings, ...] = ()
    practices: Practices = _NO_PRACTICES
    sudoers: tuple[FileFacts, ...] = ()
    console_users: Optional[tuple[ConsoleUser, ...]] = None
    arguments: tuple[Arguments, ...] = ()
    unreadable: tuple[Unreadable, ...] = ()

"""What else than images a guest is given: consoles, host devices, channels, as values.

Nothing here says whether that is wise; nor what libvirt makes of it on a certain host.
"""

from __future__ import annotations

from typing import Optional

from attr import frozen

from svirtlib.settings import Secret

__all__ = [
    "CHANNELS",
    "CharacterDevice",
    "Devices",
    "Graphics",
    "HostDevice",
    "Listen",
    "NetworkCard",
    "Redirection",
    "StorageLink",
]

#: The SPICE channels that an XML can name (libvirt ``virDomainGraphicsSpiceChannelName``).
CHANNELS = (
    "main",
    "display",
    "inputs",
    "cursor",
    "playback",
    "record",
    "smartcard",
    "usbredir",
)


@frozen
class Listen:
    """Where the XML has a console listen.

    Attributes:
        type: ``address``, ``network``, ``socket`` or ``none``.
        address: its address, or None where it names none.
        network: the libvirt network whose address it takes, or None.
        socket: path of its socket, or None where libvirt chooses it.
    """

    type: str
    address: Optional[str] = None
    network: Optional[str] = None
    socket: Optional[str] = None


@frozen
class Graphics:
    """A ``<graphics>`` element of type ``vnc`` or ``spice``.

    Attributes:
        type: ``vnc`` or ``spice``.
        listen: where it listens; QEMU takes one place.
        port: its number; 0 for none, -1 where libvirt chooses.
        tls_port: likewise, of SPICE.
        autoport: libvirt chooses the ports.
        websocket: port of VNC's WebSocket, 0 for none, -1 where libvirt chooses.
        password: the XML's password, or None where it states none.
        password_hint: it has attributes that only a password needs; then the document was
            written without its secrets.
        valid_to: when the password ends, in UTC, or None.
        default_mode: ``any``, ``secure`` or ``insecure``, of SPICE's channels.
        channels: modes of single channels.
        clipboard: text is shared between guest and client.
        file_transfer: files can be dragged into the guest.
        line: line in the document, counted from 1.
    """

    type: str
    listen: Listen
    port: int = 0
    tls_port: int = 0
    autoport: bool = False
    websocket: int = 0
    password: Optional[Secret] = None
    password_hint: bool = False
    valid_to: Optional[str] = None
    default_mode: str = "any"
    channels: tuple[tuple[str, str], ...] = ()
    clipboard: bool = True
    file_transfer: bool = True
    line: Optional[int] = None


@frozen
class HostDevice:
    """A device of the host that a guest drives.

    Attributes:
        kind: ``pci``, ``usb``, ``scsi``, ``scsi_host``, ``mdev``, ``storage``, ``misc``, ...
        name: its address as sysfs writes it (``0000:03:00.0``), or what else tells it.
        element: the element that names it: ``hostdev``, ``interface`` or ``disk``.
        line: line in the document, counted from 1.
    """

    kind: str
    name: str
    element: str = "hostdev"
    line: Optional[int] = None


@frozen
class Redirection:
    """USB devices that a client may plug into the guest.

    Attributes:
        kind: how they come: ``spicevmc`` or ``tcp``.
        filtered: a filter stands before them that does not end by letting all pass.
    """

    kind: str
    filtered: bool = False


@frozen
class CharacterDevice:
    """A serial port, console, channel or the like.

    Attributes:
        element: ``serial``, ``parallel``, ``console``, ``channel``, ``rng``, ...
        type: how the host has it: ``tcp``, ``udp``, ``dev``, ``unix``, ``spicevmc``, ...
        host: the address that it listens on or connects to, or None.
        tls: whether it is to be encrypted, or None where ``qemu.conf`` decides.
        name: what the guest knows it by, or the host's device.
    """

    element: str
    type: str
    host: Optional[str] = None
    tls: Optional[bool] = None
    name: str = ""


@frozen
class StorageLink:
    """A disk, as far as its way to the storage and its encryption go.

    Attributes:
        target: the guest's name for it (``vda``).
        type: ``file``, ``block``, ``network``, ``volume``, ...
        source: what it is, for messages.
        protocol: of a network disk: ``nbd``, ``rbd``, ``iscsi``, ``http``, ...
        remote: the server is another host, not a socket here.
        tls: whether it is to be encrypted, or None where ``qemu.conf`` decides.
        authenticated: a secret of libvirt's proves who we are.
        in_uri: a password stands in the document itself.
        encryption: ``luks``, ``qcow`` (broken), ..., or None.
        writable: the guest may write it.
        device: ``disk``, ``lun``, ``cdrom`` or ``floppy``.
    """

    target: str
    type: str
    source: str
    protocol: Optional[str] = None
    remote: bool = False
    tls: Optional[bool] = None
    authenticated: bool = False
    in_uri: bool = False
    encryption: Optional[str] = None
    writable: bool = True
    device: str = "disk"


@frozen
class NetworkCard:
    """A network card of a guest.

    Attributes:
        type: ``network``, ``bridge``, ``direct``, ``user``, ...
        source: the network or bridge.
    """

    type: str
    source: str = ""


@frozen
class Devices:
    """All of one guest.

    Attributes:
        graphics: its VNC and SPICE consoles.
        host_devices: of the host that it drives.
        redirections: for USB devices of clients.
        characters: its character devices.
        storage: its disks.
        cards: its network cards.
        inputs: paths of the host's input devices that it reads.
        displays: types of consoles that have no server (``sdl``, ...).
        arguments: what libvirt is to hand to QEMU unseen.
        overrides: properties of devices are overridden unseen.
    """

    graphics: tuple[Graphics, ...] = ()
    host_devices: tuple[HostDevice, ...] = ()
    redirections: tuple[Redirection, ...] = ()
    characters: tuple[CharacterDevice, ...] = ()
    storage: tuple[StorageLink, ...] = ()
    cards: tuple[NetworkCard, ...] = ()
    inputs: tuple[str, ...] = ()
    displays: tuple[str, ...] = ()
    arguments: tuple[str, ...] = ()
    overrides: bool = False

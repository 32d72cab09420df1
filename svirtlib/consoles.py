"""Graphical consoles of guests: what the XML says, and what libvirt makes of it.

What a console really is follows from the XML, ``qemu.conf`` and libvirt's built-in defaults
together (``qemuProcessGraphicsSetupListen``, ``qemuProcessSPICEAllocatePorts``,
``qemuBuildGraphics*CommandLine``); of a running guest QEMU's arguments tell it.
"""

from __future__ import annotations

import enum
import functools
import ipaddress
from typing import Optional

from attr import frozen

from svirtlib.devices import CHANNELS, Graphics
from svirtlib.settings import Settings

__all__ = [
    "Console",
    "Exposure",
    "cert_dir",
    "consoles_of_arguments",
    "effective_console",
    "exposure_of",
]

#: libvirt's own address where neither the XML nor ``qemu.conf`` has one.
_LOOPBACK = "127.0.0.1"


class Exposure(enum.Enum):
    """Who can reach a console at all."""

    #: Nobody but who gets a file descriptor from libvirt.
    NONE = "nobody"
    #: Who may open a UNIX socket.
    SOCKET = "users who may open its socket"
    #: Every local user.
    LOOPBACK = "every local user"
    #: Every host that the address can be reached from.
    NETWORK = "the network"
    #: The address is that of a libvirt network, which was not asked.
    UNKNOWN = "whoever can reach the libvirt network that it listens on"


@frozen
class Console:
    """What a console really is.

    Attributes:
        type: ``vnc`` or ``spice``.
        exposure: who can reach it.
        where: its address, or its socket.
        password: a password is asked for.
        sasl: SASL is asked for.
        tls: VNC: all is encrypted. SPICE: there is a port with TLS.
        verify_peer: clients must have a certificate.
        plain: SPICE: there is a port without TLS.
        modes: SPICE: the mode of each channel of :data:`CHANNELS`.
        websocket: there is a WebSocket.
        cert_dir: where its certificate lies, if TLS is on and that is known.
        secure_without_tls: libvirt will refuse to start it: TLS is asked for and switched off.
        from_conf: part of this was decided by ``qemu.conf`` or by its absence.
        source: what tells it.
    """

    type: str
    exposure: Exposure
    where: str
    password: bool = False
    sasl: bool = False
    tls: bool = False
    verify_peer: bool = False
    plain: bool = True
    modes: tuple[tuple[str, str], ...] = ()
    websocket: bool = False
    cert_dir: Optional[str] = None
    secure_without_tls: bool = False
    from_conf: bool = False
    source: str = ""

    @property
    def authenticated(self) -> bool:
        """Whether a client has to prove anything at all."""
        return self.password or self.sasl or (self.tls and self.verify_peer)

    @property
    def reachable(self) -> bool:
        """Whether it listens on TCP."""
        return self.exposure in (Exposure.LOOPBACK, Exposure.NETWORK, Exposure.UNKNOWN)

    @property
    def exposed(self) -> bool:
        """Whether more than this host's users can reach it, or may."""
        return self.exposure in (Exposure.NETWORK, Exposure.UNKNOWN)

    @property
    def wildcard(self) -> bool:
        """Whether it listens on all addresses of the host."""
        try:
            return ipaddress.ip_address(self.where).is_unspecified
        except ValueError:
            return self.where in ("", "*")


@functools.lru_cache(maxsize=1024)
def exposure_of(address: str) -> Exposure:
    """Return who can reach an address or host name."""
    if address == "localhost" or address.startswith("localhost."):
        return Exposure.LOOPBACK
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return Exposure.NETWORK
    mapped = getattr(parsed, "ipv4_mapped", None)
    return Exposure.LOOPBACK if (mapped or parsed).is_loopback else Exposure.NETWORK


def effective_console(
    graphics: Graphics,
    conf: Settings,
    *,
    running: bool = False,
    cert_dirs: tuple[str, ...] = (),
) -> Console:
    """Return what libvirt will make of a ``<graphics>``.

    Args:
        graphics: the element.
        conf: ``qemu.conf``, or its defaults.
        running: the element is of a guest that runs.
        cert_dirs: the directories for certificates that exist on the host.
    """
    kind = graphics.type
    exposure, where = _listens(graphics, conf)
    password = (graphics.password or conf.secret(f"{kind}_password")) is not None
    password = password or graphics.password_hint
    tcp = exposure not in (Exposure.NONE, Exposure.SOCKET)
    source = f"{graphics.type} console in the XML, {conf.source}"
    if kind == "vnc":
        tls = conf.flag("vnc_tls")
        return Console(
            type=kind,
            exposure=exposure,
            where=where,
            password=password,
            sasl=conf.flag("vnc_sasl"),
            tls=tls,
            verify_peer=tls
            and conf.flag("vnc_tls_x509_verify", conf.flag("default_tls_x509_verify")),
            plain=not tls,
            websocket=tcp and graphics.websocket != 0,
            cert_dir=cert_dir(conf, "vnc", cert_dirs) if tls else None,
            from_conf=tcp,
            source=source,
        )
    wanted = {mode for _, mode in graphics.channels} | {graphics.default_mode}
    fixed = graphics.tls_port > 0 and not graphics.autoport and graphics.listen.type == "address"
    refused = "secure" in wanted or (fixed and not running and not conf.flag("spice_tls"))
    plain, tls = True, False
    if tcp:
        plain, tls, refused = _spice_ports(graphics, conf, running=running)
        if not plain and not tls and not refused:
            # Without any port libvirt gives the console none, and takes back "address".
            exposure, tcp = Exposure.NONE, False
    return Console(
        type=kind,
        exposure=exposure,
        where=where,
        password=password,
        sasl=conf.flag("spice_sasl"),
        tls=tls,
        plain=plain,
        modes=_modes(graphics),
        cert_dir=cert_dir(conf, "spice", cert_dirs) if tls else None,
        secure_without_tls=refused,
        from_conf=tcp,
        source=source,
    )


def cert_dir(conf: Settings, service: str, existing: tuple[str, ...]) -> str:
    """Return where libvirt looks for a service's certificate (``…SetDefaults``)."""
    own = conf.text(f"{service}_tls_x509_cert_dir")
    if own is not None:
        return own
    usual = f"/etc/pki/libvirt-{service}"
    if usual in existing:
        return usual
    return conf.text("default_tls_x509_cert_dir") or "/etc/pki/qemu"


def _listens(graphics: Graphics, conf: Settings) -> tuple[Exposure, str]:
    listen, kind = graphics.listen, graphics.type
    portless = kind == "spice" and not (graphics.autoport or graphics.port or graphics.tls_port)
    if listen.type == "none" or (portless and listen.type == "address"):
        # libvirt turns a SPICE address without any port into "none" when it reads the XML.
        return Exposure.NONE, ""
    if listen.type == "socket":
        return Exposure.SOCKET, listen.socket or ""
    if listen.address:
        return exposure_of(listen.address), listen.address
    if listen.type == "network" and listen.network:
        return Exposure.UNKNOWN, f"the network {listen.network}"
    if listen.type == "address" and conf.flag(f"{kind}_auto_unix_socket"):
        return Exposure.SOCKET, ""
    address = conf.text(f"{kind}_listen")
    if address == "":
        # QEMU takes no address for all of them.
        return Exposure.NETWORK, "0.0.0.0"  # noqa: S104 - told, not bound
    address = address or _LOOPBACK
    return exposure_of(address), address


def _modes(graphics: Graphics) -> tuple[tuple[str, str], ...]:
    own = dict(graphics.channels)
    return tuple(
        (name, graphics.default_mode if own.get(name, "any") == "any" else own[name])
        for name in CHANNELS
    )


def _spice_ports(graphics: Graphics, conf: Settings, *, running: bool) -> tuple[bool, bool, bool]:
    """Tell whether there is a plain port, one with TLS, and whether libvirt refuses it all."""
    enabled = conf.flag("spice_tls")
    plain, tls = graphics.port != 0, graphics.tls_port != 0
    if running:
        # Its XML states the ports that were opened.
        return plain, tls, False
    wanted = {mode for _, mode in graphics.channels} | {graphics.default_mode}
    if graphics.autoport:
        plain = "insecure" in wanted or graphics.default_mode == "any"
        tls = "secure" in wanted or (graphics.default_mode == "any" and enabled)
    # A port with TLS is never opened while spice_tls is off: what asks for it does not start.
    refused = (tls and not enabled) or ("secure" in wanted and not tls)
    return plain, tls and enabled, refused


def consoles_of_arguments(arguments: tuple[str, ...], source: str) -> tuple[Console, ...]:
    """Return the consoles that QEMU's arguments open.

    Args:
        arguments: QEMU's command line.
        source: where it was seen.
    """
    objects: dict[str, dict[str, str]] = {}
    for text in _values(arguments, "-object"):
        options = _json_or_options(text)
        if options.get("qom-type", options.get("")) == "tls-creds-x509":
            objects[options.get("id", "")] = options
    consoles = [_vnc(text, objects, source) for text in _values(arguments, "-vnc")]
    consoles += [_spice(text, source) for text in _values(arguments, "-spice")]
    return tuple(consoles)


def _values(arguments: tuple[str, ...], option: str) -> list[str]:
    pairs = zip(arguments, arguments[1:])
    return [value for name, value in pairs if name in (option, f"-{option}")]


def _json_or_options(text: str) -> dict[str, str]:
    if not text.startswith("{"):
        return _options(text)
    import json

    try:
        document = json.loads(text)
    except ValueError:
        return {}
    if not isinstance(document, dict):
        return {}
    return {str(key): _scalar(value) for key, value in document.items()}


def _scalar(value: object) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return str(value) if isinstance(value, (str, int)) else ""


def _options(text: str) -> dict[str, str]:
    """Return QEMU's ``a,b=c,d`` with the first word under an empty key."""
    options: dict[str, str] = {}
    for place, part in enumerate(text.replace(",,", "\0").split(",")):
        name, equals, value = part.replace("\0", ",").partition("=")
        if place == 0 and not equals:
            options[""] = name
        else:
            options[name] = value if equals else "on"
    return options


def _on(options: dict[str, str], name: str) -> bool:
    return options.get(name, "off") in ("on", "yes", "true", "y")


def _vnc(text: str, objects: dict[str, dict[str, str]], source: str) -> Console:
    options = _options(text)
    place = options.get("", options.get("vnc", ""))
    if place == "none":
        exposure, where = Exposure.NONE, ""
    elif place.startswith("unix:"):
        exposure, where = Exposure.SOCKET, place[len("unix:") :]
    else:
        host = place.rpartition(":")[0].strip("[]")
        # QEMU listens on all addresses where none stands before the display's number.
        where = host or "0.0.0.0"  # noqa: S104 - told, not bound
        exposure = exposure_of(where)
    creds = objects.get(options.get("tls-creds", ""))
    tls = "tls-creds" in options
    return Console(
        type="vnc",
        exposure=exposure,
        where=where,
        password=_on(options, "password") or "password-secret" in options,
        sasl=_on(options, "sasl"),
        tls=tls,
        # QEMU's own default is to verify; an object that is not there cannot be judged better.
        verify_peer=tls and creds is not None and creds.get("verify-peer", "on") in ("on", "yes"),
        plain=not tls,
        websocket="websocket" in options,
        cert_dir=None if creds is None else creds.get("dir"),
        source=source,
    )


def _spice(text: str, source: str) -> Console:
    options: dict[str, str] = {}
    modes = dict.fromkeys(CHANNELS, "any")
    for part in text.replace(",,", "\0").split(","):
        name, equals, value = part.replace("\0", ",").partition("=")
        if name in ("tls-channel", "plaintext-channel"):
            mode = "secure" if name == "tls-channel" else "insecure"
            for channel in CHANNELS if value == "default" else (value,):
                modes[channel] = mode
        else:
            options[name] = value if equals else "on"
    plain = options.get("port", "0") != "0"
    tls = options.get("tls-port", "0") != "0"
    where = options.get("addr", "")
    if _on(options, "unix"):
        exposure = Exposure.SOCKET
    elif not plain and not tls:
        exposure = Exposure.NONE
    else:
        # Without an address SPICE listens on all of them.
        where = where or "0.0.0.0"  # noqa: S104 - told, not bound
        exposure = exposure_of(where)
    return Console(
        type="spice",
        exposure=exposure,
        where=where,
        password=not _on(options, "disable-ticketing"),
        sasl=_on(options, "sasl"),
        tls=tls,
        plain=plain,
        modes=tuple((name, modes.get(name, "any")) for name in CHANNELS),
        cert_dir=options.get("x509-dir"),
        source=source,
    )

"""Consoles, host devices and channels of a domain, read as libvirt reads them.

What libvirt refuses is read as far as it makes sense: the document may be one that it never
saw, and what it asks for is judged all the same.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Optional

from lxml import etree

from svirtlib.devices import (
    CHANNELS,
    CharacterDevice,
    Devices,
    Graphics,
    HostDevice,
    Listen,
    NetworkCard,
    Redirection,
    StorageLink,
)
from svirtlib.diskname import has_secret, without_secret
from svirtlib.settings import Secret
from svirtlib.xmltree import line_of

__all__ = ["read_devices"]


_QEMU = "{http://libvirt.org/schemas/domain/qemu/1.0}"
_MODES = ("any", "secure", "insecure")
_CHARACTERS = frozenset(
    {"serial", "parallel", "console", "channel", "smartcard", "rng", "redirdev"}
)

#: The first child of each name.
_Children = dict[object, etree._Element]


def _children(element: etree._Element) -> _Children:
    return {child.tag: child for child in reversed(element)}


def read_devices(domain: etree._Element, *, running: bool) -> Devices:
    """Return the devices of a ``<domain>``.

    Args:
        domain: the element.
        running: the document is of a running guest, and states what libvirt chose.
    """
    graphics: list[Graphics] = []
    host: list[HostDevice] = []
    redirections: list[Redirection] = []
    characters: list[CharacterDevice] = []
    storage: list[StorageLink] = []
    cards: list[NetworkCard] = []
    inputs: list[str] = []
    displays: list[str] = []
    allowed = True
    filtered = False
    for devices in domain.iterchildren("devices"):
        for element in devices:
            tag = element.tag
            if tag == "disk":
                storage.append(_disk(element))
                host.extend(_nvme(element))
            elif tag == "interface":
                cards.append(_card(element))
                host.extend(_interface_device(element))
            elif tag == "graphics":
                kind = element.get("type", "")
                if kind in ("vnc", "spice"):
                    graphics.append(_graphics(element, kind, running=running))
                else:
                    displays.append(kind)
            elif tag == "hostdev":
                host.append(_hostdev(element))
            elif tag == "redirfilter":
                filtered, allowed = True, _lets_all_pass(element)
            elif tag in _CHARACTERS:
                characters.extend(_character(element))
                if tag == "redirdev":
                    redirections.append(Redirection(element.get("type", "")))
            elif tag == "input" and element.get("type") in ("evdev", "passthrough"):
                source = _children(element).get("source")
                if source is not None:
                    inputs.append(source.get("dev") or source.get("evdev") or "")
    if filtered and not allowed:
        redirections = [Redirection(one.kind, filtered=True) for one in redirections]
    return Devices(
        graphics=tuple(graphics),
        host_devices=tuple(host),
        redirections=tuple(redirections),
        characters=tuple(characters),
        storage=tuple(storage),
        cards=tuple(cards),
        inputs=tuple(inputs),
        displays=tuple(displays),
        arguments=tuple(_arguments(domain)),
        overrides=domain.find(f"{_QEMU}override") is not None,
    )


def _number(text: Optional[str]) -> int:
    with contextlib.suppress(ValueError):
        return int(text or "0")
    return 0


def _graphics(element: etree._Element, kind: str, *, running: bool) -> Graphics:
    port, tls_port = _number(element.get("port")), _number(element.get("tlsPort"))
    autoport = element.get("autoport") == "yes"
    if kind == "vnc":
        autoport = element.get("autoport", "yes" if port in (0, -1) else "no") == "yes"
    elif port == -1 and tls_port == -1:
        autoport = True
    children = _children(element)
    password = element.get("passwd")
    hints = ("passwdValidTo", "connected")
    return Graphics(
        type=kind,
        listen=_listen(element, kind, running=running),
        port=port,
        tls_port=tls_port,
        autoport=autoport,
        websocket=_number(element.get("websocket")),
        password=None if password is None else Secret(password),
        # libvirt leaves out the password alone where secrets are not asked for.
        password_hint=password is None and any(name in element.attrib for name in hints),
        valid_to=element.get("passwdValidTo"),
        default_mode=_mode(element.get("defaultMode")),
        channels=tuple(
            (name, _mode(channel.get("mode")))
            for channel in element.iterchildren("channel")
            for name in [channel.get("name", "")]
            if name in CHANNELS
        ),
        clipboard=_switch(children.get("clipboard"), "copypaste"),
        file_transfer=_switch(children.get("filetransfer"), "enable"),
        line=line_of(element),
    )


def _mode(text: Optional[str]) -> str:
    return text if text in _MODES else "any"


def _switch(element: Optional[etree._Element], attribute: str) -> bool:
    return element is None or element.get(attribute) != "no"


def _listen(element: etree._Element, kind: str, *, running: bool) -> Listen:
    """Return the first place to listen, which is the one that QEMU gets."""
    first = _children(element).get("listen")
    old = kind == "vnc" and element.get("socket") is not None
    if old and (first is None or first.get("type") in ("address", "network")):
        return Listen("socket", socket=element.get("socket"))
    if first is None:
        return Listen("address", address=element.get("listen") or None)
    place = first.get("type", "address")
    address = first.get("address")
    if place == "address" and address is None:
        address = element.get("listen")
    if place == "network" and not running:
        address = None
    return Listen(
        place,
        address=(address or None) if place in ("address", "network") else None,
        network=first.get("network"),
        socket=(first.get("socket") or element.get("socket")) if place == "socket" else None,
    )


def _hostdev(element: etree._Element) -> HostDevice:
    kind = element.get("type", "")
    source = _children(element).get("source")
    if element.get("mode") == "capabilities" and source is not None:
        name = "".join(source.itertext()).strip()
        return HostDevice(kind, name, line=line_of(element))
    if source is None:
        return HostDevice(kind, "", line=line_of(element))
    return HostDevice(kind, _device_name(kind, source), line=line_of(element))


def _device_name(kind: str, source: etree._Element) -> str:
    children = _children(source)
    address = children.get("address")
    if kind == "pci" and address is not None:
        return _pci(address)
    if kind == "usb":
        ids = [children[tag].get("id", "") for tag in ("vendor", "product") if tag in children]
        if ids:
            return ":".join(text.removeprefix("0x") for text in ids)
        if address is not None:
            return f"bus {address.get('bus')} device {address.get('device')}"
    if kind == "mdev" and address is not None:
        return address.get("uuid", "")
    if kind == "scsi_host":
        return source.get("wwpn", "")
    if kind == "scsi":
        if source.get("protocol"):
            return f"{source.get('protocol')}:{source.get('name', '')}"
        adapter = children.get("adapter")
        place = (
            []
            if address is None
            else [address.get(part, "0") for part in ("bus", "target", "unit")]
        )
        return ":".join([adapter.get("name", "") if adapter is not None else "", *place])
    return source.get("dev", "")


def _pci(address: etree._Element) -> str:
    """Return an address as sysfs writes it; libvirt takes decimal and hexadecimal parts."""
    widths = (("domain", 4), ("bus", 2), ("slot", 2), ("function", 1))
    parts = []
    for name, width in widths:
        try:
            parts.append(f"{int(address.get(name, '0'), 0):0{width}x}")
        except ValueError:
            parts.append("?" * width)
    domain, bus, slot, function = parts
    return f"{domain}:{bus}:{slot}.{function}"


def _interface_device(element: etree._Element) -> Iterator[HostDevice]:
    if element.get("type") != "hostdev":
        return
    source = _children(element).get("source")
    address = None if source is None else _children(source).get("address")
    if address is not None:
        kind = address.get("type", "pci")
        name = _pci(address) if kind == "pci" else "USB"
        yield HostDevice(kind, name, element="interface", line=line_of(element))


def _nvme(element: etree._Element) -> Iterator[HostDevice]:
    if element.get("type") != "nvme":
        return
    source = _children(element).get("source")
    address = None if source is None else _children(source).get("address")
    if address is not None:
        yield HostDevice("pci", _pci(address), element="disk", line=line_of(element))


def _card(element: etree._Element) -> NetworkCard:
    source = _children(element).get("source")
    names = ("network", "bridge", "dev")
    found = (
        "" if source is None else next((source.get(name) for name in names if source.get(name)), "")
    )
    return NetworkCard(element.get("type", ""), found or "")


def _lets_all_pass(element: etree._Element) -> bool:
    """Tell whether a filter lets every device pass: what no rule denies is denied at its end."""
    for rule in element.iterchildren("usbdev"):
        wide = all(
            rule.get(name, "-1") == "-1" for name in ("class", "vendor", "product", "version")
        )
        if wide:
            return rule.get("allow") == "yes"
    return False


def _character(element: etree._Element) -> Iterator[CharacterDevice]:
    kind = element.get("type", "")
    holder = element
    if element.tag == "rng":
        backend = _children(element).get("backend")
        if backend is None or backend.get("model") != "egd":
            return
        holder, kind = backend, backend.get("type", "")
    sources = list(holder.iterchildren("source"))
    target = _children(element).get("target")
    name = target.get("name", "") if target is not None else ""
    host = None
    tls: Optional[bool] = None
    for source in sources:
        # UDP has one for each way; what is bound is open, what is connected sends.
        if source.get("host") is not None:
            host = source.get("host")
        if source.get("tls") in ("yes", "no"):
            tls = source.get("tls") == "yes"
        name = name or source.get("path") or source.get("channel") or ""
    yield CharacterDevice(str(element.tag), kind, host=host, tls=tls, name=name)


def _disk(element: etree._Element) -> StorageLink:
    children = _children(element)
    kind = element.get("type", "file")
    device = element.get("device", "disk")
    target = children["target"].get("dev", "") if "target" in children else ""
    source = children.get("source")
    inner = {} if source is None or not len(source) else _children(source)
    protocol = source.get("protocol") if source is not None and kind == "network" else None
    hosts = [] if source is None else list(source.iterchildren("host"))
    tls = None if source is None else {"yes": True, "no": False}.get(source.get("tls", ""))
    encryption = inner.get("encryption", children.get("encryption"))
    name = ""
    if source is not None:
        name = (
            source.get("file")
            or source.get("dev")
            or source.get("name")
            or source.get("volume")
            or ""
        )
    return StorageLink(
        target=target,
        type=kind,
        source=f"{protocol}:{without_secret(protocol, name)}" if protocol else name,
        protocol=protocol,
        remote=any(host.get("transport", "tcp") != "unix" for host in hosts),
        tls=tls,
        authenticated="auth" in inner or "auth" in children,
        in_uri=has_secret(protocol or "", name),
        encryption=None if encryption is None else encryption.get("format", "qcow"),
        writable="readonly" not in children and device in ("disk", "lun"),
        device=device,
    )


def _arguments(domain: etree._Element) -> Iterator[str]:
    for line in domain.iterchildren(f"{_QEMU}commandline"):
        for argument in line.iterchildren(f"{_QEMU}arg"):
            yield argument.get("value", "")

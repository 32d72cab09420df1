"""Documents with seclabels at random: right ones, wrong ones, and some in every odd place.

    DomainMaker(random.Random(7)).document()

The maker draws from anything with the methods of :class:`random.Random`; hypothesis has such
a thing (``st.randoms()``), and can then make the document smaller that fails. What is not
about seclabels is right in each document, so that libvirt has nothing else to refuse.
"""

from __future__ import annotations

from xml.sax.saxutils import escape, quoteattr

from libvirtjudge import NOWHERE

CONTEXT = "system_u:system_r:svirt_t:s0:c87,c520"
IMAGE_CONTEXT = "system_u:object_r:svirt_image_t:s0:c87,c520"

TYPES = ("dynamic", "static", "none")
ODD_TYPES = ("", "default", "Dynamic", "STATIC", " none", "absent", "xyz")
MODELS = ("selinux", "dac", "none", "apparmor")
ODD_MODELS = (
    "",
    "SELinux",
    "selinux ",
    "smack",
    "m" * 256,
    "m" * 257,
    "\u00e9" * 128,
    "\u00e9" * 129,
)
RELABELS = ("yes", "no")
ODD_RELABELS = ("", "true", "on", "Yes", "default", "no ")
LABELS = (
    CONTEXT,
    IMAGE_CONTEXT,
    "system_u:system_r:svirt_t:s0",
    "system_u:system_r:svirt_t",
    "system_u:system_r:svirt_t:s0-s0:c0.c1023",
    "system_u:system_r:svirt_t:s0:c20,c10",
)
ODD_LABELS = (
    "",
    " ",
    "\n  ",
    "garbage",
    "a:b",
    "a:b:",
    ":b:c",
    "a::c:s0",
    "a:b:c:",
    "a:b:c:s0 ",
    " " + CONTEXT,
    CONTEXT + "\n",
    "\n    " + CONTEXT + "\n    ",
    "a:b:c:s0 - s0:c1",
    "a b:c:d:s0",
    "a:b:c:s0\t",
    "x" * 4096,
    "x" * 4097,
    "\u00e9" * 2048,
    "\u00e9" * 2049,
    "a:b:c:" + "s" * 4090,
    "a:b:c:" + "s" * 4091,
    "1000:1000",
    "a&b<c>:d:e:s0",
)

DISK_KINDS = ("file", "file", "file", "block", "volume", "dir", "network", "nvme", "vhostuser")
CHARACTER_KINDS = ("file", "dev", "pipe", "unix", "pty", "tcp", "udp", "null", "stdio")


class DomainMaker:
    """Makes documents; each call of :meth:`document` makes another one."""

    def __init__(
        self, random, *, odd: float = 0.1, odd_labels: float = 0.1, startable: bool = False
    ) -> None:
        self._random = random
        #: How likely an odd value is wherever one can stand, and an odd text of a label.
        self._odd = odd
        self._odd_labels = odd_labels
        #: Leave out what a start looks at before, or besides, seclabels.
        self._startable = startable

    def chance(self, probability: float) -> bool:
        return self._random.random() < probability

    def choose(self, usual, odd=()):
        return self._random.choice(odd if odd and self.chance(self._odd) else usual)

    def some(self, most: int) -> int:
        """A small number, mostly 0 or 1."""
        return self._random.choice([0, 0, 0, 1, 1, *range(2, most + 1)][: most + 4])

    def document(self, kind: str = "qemu") -> str:
        """A whole domain of the driver *kind*."""
        identifier = " id='5'" if self.chance(0.1) else ""
        own = [self.seclabel() for _ in range(self._random.choice([0, 1, 1, 1, 1, 2, 2, 3]))]
        devices = "".join(
            self.device(number) for number in range(self._random.choice([0, 0, 1, 2, 3]))
        )
        self._consoles_before = False
        parts = [
            "<name>live</name>",
            "<memory>65536</memory>",
            *own,
            f"<os><type{self._machine(kind)}>hvm</type>{self.nvram(kind)}</os>",
            "<features><acpi/></features>",
            # vhost-user wants it.
            "<memoryBacking><source type='memfd'/><access mode='shared'/></memoryBacking>",
            f"<devices>{self._emulator(kind)}{devices}{self._stopper()}</devices>",
        ]
        if self.chance(0.05):
            parts.append(
                self.seclabel()
                .replace("<seclabel", "<x:seclabel", 1)
                .replace("</seclabel>", "</x:seclabel>")
            )
        if self.chance(0.3):
            # libvirt finds elements in any order.
            self._random.shuffle(parts)
        separator = "\n  " if self.chance(0.5) else ""
        inner = "".join(f"{separator}{part}" for part in parts)
        return f"<domain type='{kind}' xmlns:x='urn:x'{identifier}>{inner}</domain>"

    @staticmethod
    def _machine(kind: str) -> str:
        return " arch='x86_64' machine='pc'" if kind == "qemu" else ""

    @staticmethod
    def _emulator(kind: str) -> str:
        if kind != "qemu":
            return ""
        return (
            "<emulator>/usr/bin/qemu-system-x86_64</emulator>"
            "<controller type='usb' model='none'/><memballoon model='none'/>"
        )

    @staticmethod
    def _stopper() -> str:
        target = "<target dev='vdz' bus='virtio'/>"
        return f"<disk type='file'><source file='{NOWHERE}/stopper'/>{target}</disk>"

    def seclabel(self) -> str:
        """A domain's seclabel."""
        attributes = []
        kind = None
        if self.chance(0.8):
            kind = self.choose(TYPES, ODD_TYPES)
            attributes.append(("type", kind))
        if self.chance(0.75):
            attributes.append(
                ("model", self.choose(("selinux", "selinux", "selinux", *MODELS), ODD_MODELS))
            )
        if self.chance(0.35):
            attributes.append(("relabel", self.choose(RELABELS, ODD_RELABELS)))
        children = []
        wanted = {"label": 0.75 if kind == "static" else 0.25, "imagelabel": 0.2, "baselabel": 0.25}
        for name, probability in wanted.items():
            if self.chance(probability):
                children.append(self.text_element(name))
                if self.chance(self._odd / 2):
                    children.append(self.text_element(name))
        return self._element(attributes, children)

    def device_seclabel(self) -> str:
        """A seclabel of a ``<source>``."""
        attributes = []
        if self.chance(0.85):
            attributes.append(
                ("model", self.choose(("selinux", "selinux", "selinux", *MODELS), ODD_MODELS))
            )
        if self.chance(0.5):
            attributes.append(("relabel", self.choose(RELABELS, ODD_RELABELS)))
        if self.chance(self._odd):
            attributes.append(("labelskip", self.choose(("yes", "no"), ("maybe", ""))))
        children = [self.text_element("label")] if self.chance(0.5) else []
        if self.chance(self._odd / 2):
            children.append(self.text_element(self._random.choice(["label", "imagelabel"])))
        return self._element(attributes, children)

    def device_seclabels(self) -> str:
        return "".join(self.device_seclabel() for _ in range(self._random.choice([0, 1, 1, 1, 2])))

    def _element(self, attributes, children) -> str:
        if self.chance(self._odd / 2):
            attributes.append((self._random.choice(["label", "xyz", "Model"]), "yes"))
        if self.chance(self._odd / 4):
            # libxml2 takes an attribute of any name space for libvirt's.
            name = self._random.choice(["type", "model", "relabel"])
            attributes.append((f"x:{name}", self._random.choice(["static", "selinux", "no"])))
        if self.chance(self._odd / 2):
            children.append(
                self._random.choice(
                    ["<xyz/>", "<Label>a:b:c:s0</Label>", "text", "<x:label>a:b:c:s0</x:label>"]
                )
            )
        if self.chance(0.3):
            self._random.shuffle(attributes)
            self._random.shuffle(children)
        text = "".join(f" {name}={quoteattr(value)}" for name, value in attributes)
        separator = "\n    " if self.chance(0.5) else ""
        if not children:
            return f"<seclabel{text}/>"
        return f"<seclabel{text}>{separator}{separator.join(children)}{separator}</seclabel>"

    def text_element(self, name: str) -> str:
        text = self._random.choice(ODD_LABELS if self.chance(self._odd_labels) else LABELS)
        if self.chance(self._odd / 4):
            inner = self._random.choice(
                [
                    f"<![CDATA[{text.replace('&', '').replace('<', '')}]]>",
                    f"<b>{escape(text)}</b>",
                    f"  <b>{escape(text)}</b>  ",
                    f"{escape(text)}<b>x</b>",
                    f"{escape(text)}<!-- c -->y",
                ]
            )
        else:
            inner = escape(text)
        return f"<{name}>{inner}</{name}>" if inner or self.chance(0.5) else f"<{name}/>"

    def device(self, number: int) -> str:
        return self._random.choice(
            [self.disk, self.disk, self.disk, self.character, self.character, self.stranger]
        )(number)

    def disk(self, number: int) -> str:
        kind = self._random.choice(DISK_KINDS)
        if self._startable and kind in ("nvme", "volume"):
            kind = "file"
        parts = [
            f"<target dev='vd{chr(ord('a') + number)}' bus='virtio'/>",
            self.source(kind, number, self.device_seclabels()),
        ]
        if kind == "dir":
            parts[0] = "<driver type='fat'/><readonly/>" + parts[0]
        elif kind not in ("nvme", "vhostuser"):
            parts.append(self.backing(self.some(3)))
        if kind == "vhostuser":
            parts[0] = "<driver name='qemu' type='raw'/>" + parts[0]
        if self.chance(0.1):
            # Where it is no business of the disk.
            parts.append(self.device_seclabel())
        if self.chance(0.1) and kind in ("file", "block"):
            parts.append(
                f"<mirror type='file' job='copy'>{self.source('file', 9, self.device_seclabels())}"
                "<format type='raw'/></mirror>"
            )
        if self.chance(0.1) and kind == "file":
            parts.append(self.source(kind, 8, self.device_seclabels()))
        if self.chance(0.3):
            self._random.shuffle(parts)
        return f"<disk type='{kind}' device='disk'>{''.join(parts)}</disk>"

    def backing(self, depth: int) -> str:
        """A backing chain, ended, left open, or ended by what libvirt takes for its end."""
        if depth == 0:
            return self._random.choice(["", "<backingStore/>"])
        kind = self._random.choice(("file", "file", "block", "network", "volume"))
        if self._startable and kind == "volume":
            kind = "block"
        parts = [
            "<format type='qcow2'/>",
            self.source(kind, depth, self.device_seclabels()),
            self.backing(depth - 1),
        ]
        if self.chance(0.3):
            self._random.shuffle(parts)
        written = "" if self.chance(0.1) else f" type='{kind}'"
        if self.chance(0.05):
            parts.append(self.device_seclabel())
        return f"<backingStore{written}>{''.join(parts)}</backingStore>"

    @staticmethod
    def source(kind: str, number: int, inner: str) -> str:
        path = f"{NOWHERE}/image{number}"
        if kind == "file":
            return f"<source file='{path}'>{inner}</source>"
        if kind == "block":
            return f"<source dev='{path}'>{inner}</source>"
        if kind == "dir":
            return f"<source dir='{path}'>{inner}</source>"
        if kind == "volume":
            return f"<source pool='p' volume='v{number}'>{inner}</source>"
        if kind == "network":
            return f"<source protocol='nbd' name='n{number}'><host name='h'/>{inner}</source>"
        if kind == "nvme":
            address = "<address domain='0x0000' bus='0x01' slot='0x00' function='0x0'/>"
            start = f"<source type='pci' managed='yes' namespace='{number + 1}'>"
            return f"{start}{address}{inner}</source>"
        return f"<source type='unix' path='{NOWHERE}/socket{number}'>{inner}</source>"

    def nvram(self, kind: str) -> str:
        if kind != "qemu" or self._startable or not self.chance(0.12):
            return ""
        loader = f"<loader readonly='yes' type='pflash'>{NOWHERE}/code.fd</loader>"
        inner = self.source("file", 7, self.device_seclabels())
        if self.chance(0.2):
            # Without a type the text is the path, and the element in it is not looked at.
            return f"{loader}<nvram>{NOWHERE}/vars.fd{self.device_seclabel()}</nvram>"
        return f"{loader}<nvram type='file'>{inner}</nvram>"

    def character(self, number: int) -> str:
        tag = self._random.choice(["serial", "parallel", "console", "channel"])
        kind = self._random.choice(CHARACTER_KINDS)
        inner = self.device_seclabels()
        # Few names, so that a console and a serial port may have the same.
        path = f"{NOWHERE}/chardev{self._random.choice([0, 0, 1])}"
        source = {
            "unix": f"<source mode='bind' path='{path}'>{inner}</source>",
            "pty": f"<source path='{path}'>{inner}</source>",
            "tcp": f"<source mode='connect' host='127.0.0.1' service='1'>{inner}</source>",
            "udp": f"<source mode='connect' host='127.0.0.1' service='1'>{inner}</source>",
            "null": f"<source>{inner}</source>",
            "stdio": f"<source>{inner}</source>",
        }.get(kind, f"<source path='{path}'>{inner}</source>")
        if kind == "tcp":
            source += "<protocol type='raw'/>"
        target = {
            "channel": f"<target type='virtio' name='org.example.{number}'/>",
            "console": self._random.choice(["", "<target type='serial'/>"]),
        }.get(tag, "")
        if tag == "console" and self._consoles_before:
            target = "<target type='virtio'/>"
        self._consoles_before |= tag == "console"
        extra = self.device_seclabel() if self.chance(0.05) else ""
        return f"<{tag} type='{kind}'>{source}{target}{extra}</{tag}>"

    _consoles_before = False

    def stranger(self, number: int) -> str:
        """A device in which libvirt reads no seclabel."""
        inner = self.device_seclabel()
        address = f"domain='0x0000' bus='0x02' slot='0x0{number}' function='0x0'"
        hostdev = (
            f"<hostdev mode='subsystem' type='pci' managed='no'><source><address {address}/>"
            f"{inner}</source></hostdev>"
        )
        return self._random.choice(
            [
                "" if self._startable else hostdev,
                f"<filesystem type='mount'><source dir='{NOWHERE}/fs'>"
                f"{inner}</source><target dir='t{number}'/></filesystem>",
                f"<interface type='user'>{inner}<model type='virtio'/></interface>",
                f"<rng model='virtio'>{inner}<backend model='random'>/dev/urandom</backend></rng>",
                "<rng model='virtio'><backend model='egd' type='unix'><source mode='connect' "
                f"path='{NOWHERE}/egd'>{inner}</source></backend></rng>",
                f"<controller type='scsi' index='{number}'>{inner}</controller>",
            ]
        )

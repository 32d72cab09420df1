"""A real libvirtd of the superuser, with hooks, apart from the machine's own.

    with SystemDaemon(folder) as daemon:
        daemon.hooks            # its /etc/libvirt/hooks
        daemon.define(bootable("web", disks=[...]))
        daemon.start("web")

It runs in name spaces of its own for mounts and processes: what libvirt keeps (/etc/libvirt,
/run, /var/lib, /var/log, /var/cache) is empty there and gone afterwards. Its QEMU driver and
its SELinux driver are the real ones; fakeselinux.c plays a kernel with SELinux, and labels of
files are set for real.

Skips without root, libvirt's QEMU driver, QEMU, a compiler, or the right to make name spaces.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import socket
import subprocess
from pathlib import Path
from typing import Any

from libvirtjudge import CONTEXTS, HERE
from needs import require, require_module, require_program

__all__ = ["SystemDaemon"]

_PATIENCE = 60

#: Process 1 of the name space; it goes on with another libvirtd when one ends.
_INIT = """
set -e
for folder in /run /var/lib /var/cache /var/log; do mount -t tmpfs tmpfs "$folder"; done
mount --bind "$BASE/etc" /etc/libvirt
for file in passwd group; do mount --bind "$BASE/$file" "/etc/$file"; done
mkdir -p /run/systemd/journal
mount --bind "$BASE/journal" /run/systemd/journal
trap 'exit 0' TERM
while :; do
    env -i PATH="$BASE/bin" HOME="$BASE" LC_ALL=C.UTF-8 LD_PRELOAD="$BASE/fakeselinux.so" \
        FAKE_SELINUX_CONTEXTS="$BASE" FAKE_SELINUX_FILES=1 \
        "$LIBVIRTD" -f "$BASE/etc/libvirtd.conf" -p "$BASE/pid" </dev/null 9>&- &
    wait $! || :
done
"""

_QEMU_CONF = """
stdio_handler = "file"
user = "root"
group = "root"
cgroup_controllers = []
namespaces = []
security_driver = "selinux"
dynamic_ownership = 0
"""

_LIBVIRTD_CONF = """
auth_unix_rw = "none"
auth_unix_ro = "none"
unix_sock_dir = "{base}/sock"
# Else it writes to the journal, where it would wait until a test has read what it says.
log_outputs = "2:stderr"
"""


class SystemDaemon:
    """A libvirtd that runs from ``__enter__`` to ``__exit__``.

    Attributes:
        hooks: its folder of hooks.
        folder: where images may lie.
        connection: one that may write.
        libvirt: libvirt's bindings.
    """

    connection: Any

    def __init__(self, base: Path) -> None:
        require(os.geteuid() == 0, "only the superuser can make name spaces and label files")
        self.libvirt = require_module("libvirt", package="python3-libvirt")
        self._program = require_program("libvirtd", package="libvirt-daemon")
        qemu = require_program("qemu-system-x86_64", package="qemu-system-x86")
        compiler = require_program("cc", package="gcc")
        module = "libvirt/connection-driver/libvirt_driver_qemu.so"
        require(
            [*Path("/usr").glob(f"lib*/{module}"), *Path("/usr").glob(f"lib*/*/{module}")],
            "no QEMU driver of libvirt (Debian package libvirt-daemon-driver-qemu)",
        )
        require(Path("/etc/libvirt").is_dir(), "no /etc/libvirt (Debian package libvirt0)")
        self._base = base
        for name in ("etc", "bin", "sock", "journal", "images"):
            (base / name).mkdir(mode=0o755)
        self.folder = base / "images"
        self.hooks = base / "etc" / "hooks"
        (self.hooks / "qemu.d").mkdir(parents=True)
        (base / "etc" / "qemu.conf").write_text(_QEMU_CONF)
        (base / "etc" / "libvirtd.conf").write_text(_LIBVIRTD_CONF.format(base=base))
        (base / "bin" / "qemu-system-x86_64").symlink_to(qemu)
        for name, text in CONTEXTS.items():
            (base / name).write_text(text)
        # The QEMU driver asks for Debian's user, whatever its configuration names.
        for name, line in (
            ("passwd", "libvirt-qemu:x:64055:64055::/:/bin/false\n"),
            ("group", "libvirt-qemu:x:64055:\nkvm:x:64056:\n"),
        ):
            text = Path("/etc", name).read_text()
            (base / name).write_text(text if "libvirt-qemu" in text else text + line)
        library = base / "fakeselinux.so"
        source = str(HERE / "fakeselinux.c")
        subprocess.run([compiler, "-shared", "-fPIC", "-o", str(library), source], check=True)
        self._journal = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._journal.bind(str(base / "journal" / "socket"))
        self._journal.setblocking(False)

    def __enter__(self):
        self._log = (self._base / "log").open("w+")
        self._init = subprocess.Popen(
            [
                *("unshare", "--mount", "--propagation", "private", "--pid", "--fork"),
                *("--kill-child", "--mount-proc", "sh", "-c", _INIT),
            ],
            env={**os.environ, "BASE": str(self._base), "LIBVIRTD": self._program},
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
        )
        try:
            self._connect()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        # With process 1 of a name space all others end.
        self._init.kill()
        self._init.wait(_PATIENCE)
        self._log.close()
        self._journal.close()
        shutil.rmtree(self._base / "sock", ignore_errors=True)

    def _connect(self) -> None:
        path = self._base / "sock" / "libvirt-sock"
        for _ in range(_PATIENCE * 100):
            with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as probe:
                probe.connect(str(path))
                break
            if self._init.poll() is not None:
                self._log.seek(0)
                text = self._log.read()
                require("Operation not permitted" not in text, "may not make name spaces")
                raise RuntimeError(f"libvirtd did not start: {text[-2000:]}")
            select.select([], [], [], 0.01)
        self.libvirt.registerErrorHandler(lambda *_: None, None)
        self.connection = self.libvirt.open(f"qemu:///system?socket={path}")

    def restart(self) -> None:
        """Have another libvirtd take over the running guests."""
        self.connection.close()
        (self._base / "sock" / "libvirt-sock").unlink()
        number = (self._base / "pid").read_text().strip()
        self.inside("kill", f"-{signal.SIGTERM.value}", number)
        self._connect()

    def inside(self, *command: str) -> str:
        """Run a program where libvirtd runs; return what it wrote."""
        (init,) = Path(f"/proc/{self._init.pid}/task/{self._init.pid}/children").read_text().split()
        done = subprocess.run(
            ["nsenter", "--target", init, "--mount", "--pid", *command],
            capture_output=True,
            text=True,
            timeout=_PATIENCE,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def define(self, *documents: str) -> None:
        """Define guests."""
        for document in documents:
            self.connection.defineXML(document)

    def start(self, name: str) -> Any:
        """Start a guest, paused, so that it costs no time; return libvirt's object."""
        domain = self.connection.lookupByName(name)
        domain.createWithFlags(self.libvirt.VIR_DOMAIN_START_PAUSED)
        return domain

    def clear(self) -> None:
        """Forget all guests, hooks and messages."""
        for domain in self.connection.listAllDomains():
            if domain.isActive():
                domain.destroy()
            domain.undefine()
        for hook in (self.hooks / "qemu.d").iterdir():
            hook.unlink()
        for image in self.folder.iterdir():
            image.unlink()
        self.messages()

    def messages(self) -> list[dict[str, str]]:
        """Return what was told to the journal since the last time."""
        found = []
        with contextlib.suppress(BlockingIOError):
            while True:
                found.append(_fields(self._journal.recv(1 << 20)))
        return found


def _fields(data: bytes) -> dict[str, str]:
    """Take a message to journald apart, of which each field stands there with its length."""
    fields = {}
    while data:
        name, _, data = data.partition(b"\n")
        size = int.from_bytes(data[:8], "little")
        fields[name.decode()] = data[8 : 8 + size].decode()
        assert data[8 + size : 9 + size] == b"\n"
        data = data[9 + size :]
    return fields

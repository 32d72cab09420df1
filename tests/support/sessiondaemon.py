"""A real libvirtd of an ordinary user, private to the tests, without systemd.

    with SessionDaemon() as daemon:
        daemon.define(defined("web", "s0:c1,c2"))
        check("--connect", daemon.uri)

Runs the program libvirtd with a home and a runtime directory of its own, so nothing of the
machine's libvirt is touched. As the superuser it would be a system daemon; it then becomes
``nobody``. Its QEMU is the real one, software emulation only.

Skips where libvirt's bindings, libvirtd, its QEMU driver or QEMU is missing.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from needs import require, require_module, require_program
from privileges import NOBODY
from xmlmaker import guest

__all__ = ["DeafSocket", "SessionDaemon", "bootable", "defined"]


#: Seconds after which a daemon that does not come up is taken for broken.
_PATIENCE = 60


def defined(name: str, level: str = "", **settings: Any) -> str:
    """A definition that the daemon takes; of a guest with a static label if there is a level."""
    how = "static" if level else "dynamic"
    document = guest(name, level, how=how, live=False, virt_type="qemu", **settings)
    # An ordinary user's guests have no network that libvirt manages.
    return document.replace("<interface type='network'>", "<interface type='user'>")


def bootable(name: str, *, disks: Sequence[str] = ()) -> str:
    """The definition of a guest with which QEMU really starts."""
    return (
        f"<domain type='qemu'><name>{name}</name><memory unit='MiB'>16</memory>"
        f"<os><type arch='x86_64' machine='pc'>hvm</type></os>"
        f"<devices><controller type='usb' model='none'/>{''.join(disks)}"
        f"<memballoon model='none'/></devices></domain>"
    )


class SessionDaemon:
    """A libvirtd that runs from ``__enter__`` to ``__exit__``.

    Attributes:
        uri: leads to it.
        connection: one that may write.
        pid: its process.
        folder: where its guests' images may lie.
    """

    uri: str
    connection: Any
    pid: int
    folder: Path

    def __init__(self) -> None:
        self._libvirt = require_module("libvirt", package="python3-libvirt")
        self._program = require_program("libvirtd", package="libvirt-daemon")
        qemu = require_program("qemu-system-x86_64", package="qemu-system-x86")
        driver = "libvirt/connection-driver/libvirt_driver_qemu.so"
        require(
            [*Path("/usr").glob(f"lib*/{driver}"), *Path("/usr").glob(f"lib*/*/{driver}")],
            "no QEMU driver of libvirt (Debian package libvirt-daemon-driver-qemu)",
        )
        self._qemu = qemu
        self._cleanup = contextlib.ExitStack()

    def __enter__(self):
        with contextlib.ExitStack() as cleanup:
            self._start(cleanup)
            self._cleanup = cleanup.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._cleanup.close()

    def _start(self, cleanup: contextlib.ExitStack) -> None:
        # In memory, for libvirt waits until a definition is on the disk; and short, for the
        # name of a socket has at most 107 characters.
        memory = Path("/dev/shm")
        base = Path(tempfile.mkdtemp(prefix="svirt-", dir=memory if memory.is_dir() else None))
        cleanup.callback(shutil.rmtree, base, ignore_errors=True)
        variables = {}
        for variable, name in (
            ("HOME", "home"),
            ("XDG_RUNTIME_DIR", "run"),
            ("XDG_CONFIG_HOME", "config"),
            ("XDG_CACHE_HOME", "cache"),
            ("XDG_DATA_HOME", "data"),
        ):
            (base / name).mkdir(mode=0o700)
            variables[variable] = str(base / name)
        # It asks each QEMU that it finds what it can do, which takes a second; one will do.
        (base / "bin").mkdir()
        (base / "bin" / "qemu-system-x86_64").symlink_to(self._qemu)
        self.folder = base / "images"
        self.folder.mkdir()
        settings = base / "config" / "libvirt"
        settings.mkdir()
        # Else a virtlogd is left behind by the first guest that starts.
        (settings / "qemu.conf").write_text('stdio_handler = "file"\n')
        self._become: dict[str, Any] = {}
        if os.geteuid() == 0:
            self._become = {"user": NOBODY, "group": NOBODY, "extra_groups": []}
            base.chmod(0o755)
            for path in base.rglob("*"):
                os.chown(path, NOBODY, NOBODY, follow_symlinks=False)
        log = cleanup.enter_context((base / "log").open("w+"))
        process = subprocess.Popen(
            [self._program],
            env={**variables, "PATH": str(base / "bin"), "LC_ALL": "C.UTF-8"},
            cwd=base,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            **self._become,
        )
        cleanup.callback(self._stop, process)
        self.pid = process.pid
        self._runtime = base / "run"
        self._socket = self._runtime / "libvirt" / "libvirt-sock"
        self.uri = f"qemu:///session?socket={self._socket}"
        self.connection = self._connect(process, log)
        cleanup.callback(self._close)

    def _connect(self, process: subprocess.Popen[bytes], log: Any) -> Any:
        """Wait for its socket, and open it."""
        for _ in range(_PATIENCE * 100):
            with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as probe:
                probe.connect(str(self._socket))
                break
            if process.poll() is not None:
                log.seek(0)
                raise RuntimeError(f"libvirtd ended: {log.read()[-2000:]}")
            select.select([], [], [], 0.01)
        self._libvirt.registerErrorHandler(lambda *_: None, None)
        return self._libvirt.open(self.uri)

    def _stop(self, process: subprocess.Popen[bytes]) -> None:
        process.send_signal(signal.SIGCONT)
        process.terminate()
        try:
            process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _close(self) -> None:
        self.resume()
        self._destroy_all()
        self.connection.close()

    def _destroy_all(self) -> None:
        for domain in self.connection.listAllDomains():
            if domain.isActive():
                # libvirt would ask QEMU first, and wait for two seconds.
                os.kill(self.pid_of(domain.name()), signal.SIGKILL)
                with contextlib.suppress(self._libvirt.libvirtError):
                    domain.destroy()

    def define(self, *documents: str) -> None:
        """Define guests."""
        for document in documents:
            self.connection.defineXML(document)

    def start(self, name: str) -> Any:
        """Start a guest, paused, so that it costs no time; return libvirt's object."""
        domain = self.connection.lookupByName(name)
        domain.createWithFlags(self._libvirt.VIR_DOMAIN_START_PAUSED)
        return domain

    def pid_of(self, name: str) -> int:
        """Return the number of a running guest's process, as libvirt wrote it down."""
        return int((self._runtime / "libvirt" / "qemu" / "run" / f"{name}.pid").read_text())

    def pool(self, name: str, volume: str) -> Any:
        """Make a pool of :attr:`folder` with one volume; return libvirt's object."""
        pool = self.connection.storagePoolDefineXML(
            f"<pool type='dir'><name>{name}</name>"
            f"<target><path>{self.folder}</path></target></pool>"
        )
        pool.create()
        pool.createXML(
            f"<volume><name>{volume}</name><capacity>4096</capacity>"
            f"<target><format type='raw'/></target></volume>"
        )
        return pool

    def tunnel(self, folder: Path) -> str:
        """Return a URI that leads here through a program, as it does through ssh."""
        program = folder / "tunnel"
        program.write_text(
            f"#!{sys.executable}\n"
            "import os, socket, threading\n"
            "connection = socket.socket(socket.AF_UNIX)\n"
            f"connection.connect({str(self._socket)!r})\n"
            "def back():\n"
            "    while data := connection.recv(65536):\n"
            "        os.write(1, data)\n"
            "threading.Thread(target=back, daemon=True).start()\n"
            "while data := os.read(0, 65536):\n"
            "    connection.sendall(data)\n"
        )
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
        return f"qemu+ext:///session?command={program}"

    def clear(self) -> None:
        """Forget all guests and pools, and what lies in :attr:`folder`."""
        self._destroy_all()
        for domain in self.connection.listAllDomains():
            domain.undefine()
        for pool in self.connection.listAllStoragePools():
            if pool.isActive():
                pool.destroy()
            if pool.isPersistent():
                pool.undefine()
        for path in self.folder.iterdir():
            path.unlink()

    def halt(self) -> None:
        """Have it hang: it keeps its sockets and does nothing."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Have it go on."""
        os.kill(self.pid, signal.SIGCONT)


class DeafSocket:
    """A socket that takes connections and never says a word.

    Attributes:
        path: where it is.
        connected: set once somebody has connected.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / "deaf"
        self.connected = threading.Event()
        self._held: list[socket.socket] = []
        self._listener = socket.socket(socket.AF_UNIX)
        self._thread = threading.Thread(target=self._accept)

    def __enter__(self):
        self._listener.bind(str(self.path))
        self._listener.listen()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        for connection in (self._listener, *self._held):
            connection.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                self._held.append(self._listener.accept()[0])
                self.connected.set()

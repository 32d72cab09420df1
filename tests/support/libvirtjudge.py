"""The real libvirt as the judge of seclabels, in a process of its own.

    with Judge() as judge:                      # the QEMU driver, SELinux first
        judge.ask("<domain>...</domain>")       # Verdict(stage="start", code=38, ...)
    with Judge(driver="test") as judge: ...     # libvirt's test driver

The QEMU driver runs embedded in that process (``qemu:///embed``), with a root directory of
its own: no daemon, nothing of the machine is touched, and no guest ever runs, because the
last disk of each document that is to be started does not exist. On a kernel without SELinux
``fakeselinux.c`` plays the kernel; what is judged is libvirt's own security driver.

As the superuser the driver would want users that only a configured host has, so the process
becomes ``nobody``.

Skips where libvirt's bindings, its QEMU driver, QEMU or a compiler is missing.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Optional

NOBODY = 65534
HERE = Path(__file__).resolve().parent
#: Where nothing is: why a document that passes all checks does not start.
NOWHERE = "/nonexistent"

CONTEXTS = {
    "virtual_domain_context": "system_u:system_r:svirt_t:s0\nsystem_u:system_r:svirt_tcg_t:s0\n",
    "virtual_image_context": "system_u:object_r:svirt_image_t:s0\n"
    "system_u:object_r:virt_content_t:s0\n",
}


class Verdict(NamedTuple):
    """What libvirt says: where it stopped, with its error, and what it made of the document."""

    #: ``define``, ``start``, or ``accepted``.
    stage: str
    code: int = 0
    message: str = ""
    #: The inactive XML that it prints after define.
    xml: str = ""


class Judge:
    """A process that asks one of libvirt's drivers."""

    def __init__(
        self,
        driver: str = "qemu",
        *,
        security_driver: Optional[str] = None,
        require_confined: bool = False,
        settings: Sequence[str] = (),
    ) -> None:
        from needs import require_module, require_program, skip

        require_module("libvirt", package="python3-libvirt")
        self.root = Path(tempfile.mkdtemp(dir="/dev/shm" if Path("/dev/shm").is_dir() else None))
        environment = dict(os.environ)
        try:
            if driver != "test":
                require_program("qemu-system-x86_64", package="qemu-system-x86")
                compiler = require_program("cc", package="gcc")
                module = "libvirt/connection-driver/libvirt_driver_qemu.so"
                if not [
                    *Path("/usr").glob(f"lib*/{module}"),
                    *Path("/usr").glob(f"lib*/*/{module}"),
                ]:
                    skip("no QEMU driver of libvirt (Debian package libvirt-daemon)")
                lines = [
                    # Else a virtlogd is left behind.
                    'stdio_handler = "file"',
                    f"security_require_confined = {int(require_confined)}",
                    *settings,
                ]
                if security_driver is not None:
                    lines.append(f'security_driver = "{security_driver}"')
                (self.root / "etc").mkdir()
                (self.root / "etc" / "qemu.conf").write_text("\n".join(lines) + "\n")
                for name, text in CONTEXTS.items():
                    (self.root / name).write_text(text)
                library = self.root / "fakeselinux.so"
                command = [compiler, "-shared", "-fPIC", "-o", str(library)]
                subprocess.run([*command, str(HERE / "fakeselinux.c")], check=True)
                environment["LD_PRELOAD"] = str(library)
                # libvirt looks at every QEMU that it finds, which takes seconds; the documents
                # name theirs.
                environment["PATH"] = str(self.root)
                environment["FAKE_SELINUX_CONTEXTS"] = str(self.root)
            if os.geteuid() == 0:
                for path in (self.root, *self.root.rglob("*")):
                    os.chown(path, NOBODY, NOBODY, follow_symlinks=False)
            environment.update(
                HOME=str(self.root),
                XDG_RUNTIME_DIR=str(self.root),
                XDG_CACHE_HOME=str(self.root / "cache"),
                XDG_CONFIG_HOME=str(self.root / "config"),
                LC_ALL="C.UTF-8",
            )
            self._process: Any = subprocess.Popen(
                [sys.executable, __file__, driver, str(self.root)],
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                encoding="utf-8",
            )
            # Not asked for: libvirt would look at every QEMU before it answers. Unprivileged, it
            # has no second one.
            self.models = ("selinux" if security_driver is None else security_driver,)
            assert self._answer_line() == "ready\n", "libvirt did not start"
        except BaseException:
            shutil.rmtree(self.root, ignore_errors=True)
            raise

    def ask(self, xml: str, *, start: bool = False) -> Verdict:
        """Let libvirt define a document, and then start it."""
        return Verdict(**self._ask({"xml": xml, "start": start}))

    def ask_status(self, xml: str) -> Verdict:
        """Let libvirt load its record of a running guest, which is how live XML is parsed.

        Only a judge of the driver ``status`` can; it tells neither code nor message.
        """
        return Verdict(**self._ask({"status": xml}))

    def ask_snapshot(self, domain: str, xml: str) -> Verdict:
        """Let libvirt define a domain, and make a snapshot of it."""
        return Verdict(**self._ask({"xml": domain, "snapshot": xml}))

    def ask_arguments(self, xml: str) -> Verdict:
        """Let libvirt define a document, and tell the QEMU arguments that it would start with.

        They stand in the verdict's message, one a line.
        """
        return Verdict(**self._ask({"xml": xml, "arguments": True}))

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        shutil.rmtree(self.root, ignore_errors=True)

    def __enter__(self) -> Judge:  # noqa: PYI034 - typing has Self since 3.11
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _ask(self, question: dict[str, Any]) -> dict[str, Any]:
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer_line(self) -> str:
        return self._process.stdout.readline()

    def _answer(self) -> dict[str, Any]:
        line = self._answer_line()
        assert line, f"libvirt died (status {self._process.wait(10)})"
        return json.loads(line)


def _serve(driver: str, root: str) -> None:
    """Answer questions on standard input until it ends."""
    import threading

    import libvirt

    answers = os.fdopen(os.dup(1), "w")
    log = Path(root, "log.txt")
    with log.open("a") as stream:
        for descriptor in (1, 2):
            os.dup2(stream.fileno(), descriptor)
    if os.geteuid() == 0:
        os.chown(log, NOBODY, NOBODY)
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
    if driver == "status":
        answers.write("ready\n")
        answers.flush()
        for line in sys.stdin:
            verdict = _load_status(json.loads(line)["status"], Path(root), log)
            answers.write(json.dumps(verdict._asdict()) + "\n")
            answers.flush()
        return
    libvirt.registerErrorHandler(lambda *_: None, None)
    libvirt.virEventRegisterDefaultImpl()

    def loop() -> None:
        while True:
            libvirt.virEventRunDefaultImpl()

    threading.Thread(target=loop, daemon=True).start()
    uri = "test:///default" if driver == "test" else f"qemu:///embed?root={root}"

    def judge(question: dict[str, Any]) -> Verdict:
        try:
            domain = connection.defineXML(question["xml"])
        except libvirt.libvirtError as error:
            return Verdict("define", error.get_error_code(), error.get_error_message())
        try:
            xml = domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)
            try:
                if question.get("arguments"):
                    flags = libvirt.VIR_DOMAIN_XML_INACTIVE | libvirt.VIR_DOMAIN_XML_SECURE
                    secure = domain.XMLDesc(flags)
                    words = connection.domainXMLToNative("qemu-argv", secure).replace("\\\n", " ")
                    return Verdict("accepted", message="\n".join(shlex.split(words)), xml=xml)
                if question.get("start"):
                    domain.create()
                if "snapshot" in question:
                    domain.snapshotCreateXML(question["snapshot"]).delete()
            except libvirt.libvirtError as error:
                if NOWHERE not in error.get_error_message():
                    return Verdict("start", error.get_error_code(), error.get_error_message(), xml)
            return Verdict("accepted", xml=xml)
        finally:
            domain.undefineFlags(libvirt.VIR_DOMAIN_UNDEFINE_KEEP_NVRAM if driver == "qemu" else 0)

    connection = libvirt.open(uri)
    answers.write("ready\n")
    answers.flush()
    for line in sys.stdin:
        answers.write(json.dumps(judge(json.loads(line))._asdict()) + "\n")
        answers.flush()
    connection.close()


def _load_status(xml: str, root: Path, log: Path) -> Verdict:
    """Let the driver start up with its record of a running guest.

    It starts once in a process. Nobody is told of a record that it could not read; it says so
    in its log alone, without the reason.
    """
    import libvirt

    directory = root / "run" / "qemu"
    directory.mkdir(parents=True, exist_ok=True)
    status = directory / "live.xml"
    status.write_text(xml)
    os.truncate(log, 0)
    child = os.fork()
    if child == 0:
        libvirt.virEventRegisterDefaultImpl()
        libvirt.open(f"qemu:///embed?root={root}")
        os._exit(0)
    _, state = os.waitpid(child, 0)
    assert state == 0, log.read_text()
    status.unlink(missing_ok=True)
    refused = "Failed to load config for domain 'live'" in log.read_text()
    return Verdict("define") if refused else Verdict("accepted")


if __name__ == "__main__":
    _serve(*sys.argv[1:])

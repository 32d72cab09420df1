"""Guests from libvirt, over a read-only connection.

Every call can hang: libvirt has no time limit of its own, and a guest with a stuck job blocks
each question about it. Calls therefore run in threads of their own that are left behind when
they do not answer in time; the process can still end, as the threads are daemons.
"""

from __future__ import annotations

import ctypes
import queue
import threading
import urllib.parse
from collections.abc import Iterator, Sequence
from types import ModuleType
from typing import Any, Callable, Optional, TypeVar, Union

from attr import evolve

from svirtlib.backends import _procfs, _selinux
from svirtlib.domainxml import parse_document
from svirtlib.errors import (
    BackendDataError,
    BackendError,
    BackendPermissionError,
    BackendTimeoutError,
    BackendUnavailableError,
    DomainXMLError,
)
from svirtlib.guests import Guest, Host, Image, Mode, Process, Unreadable
from svirtlib.ports import Progress

__all__ = ["DEFAULT_TIMEOUT", "LibvirtGuests"]

_T = TypeVar("_T")

#: Seconds without any answer after which libvirt counts as hung.
DEFAULT_TIMEOUT = 30.0

#: Questions under way at once on the one connection. libvirt answers a read-only client with
#: several threads; four hide the latency of the socket and leave the daemon its breath.
_THREADS = 4


class LibvirtGuests:
    """The guests of one libvirt connection.

    Args:
        uri: what to connect to; None for libvirt's own default (``LIBVIRT_DEFAULT_URI``,
            ``libvirt.conf``, then what it finds).
        timeout: seconds without any answer after which libvirt counts as hung.

    Raises:
        BackendError: the bindings are missing, or libvirt cannot be reached in time.
    """

    def __init__(self, uri: Optional[str] = None, *, timeout: float = DEFAULT_TIMEOUT) -> None:
        self._libvirt = _bindings()
        self._timeout = timeout
        self._named = uri or "the default connection"
        self._notes: list[str] = []
        self._volumes: dict[str, Optional[str]] = {}
        self._mode: Optional[Mode] = None
        self._connection = self._ask("connect", self._libvirt.openReadOnly, uri)
        self.uri: str = self._ask("tell its URI", self._connection.getURI)
        scheme = urllib.parse.urlsplit(self.uri)
        self.is_test = scheme.scheme.partition("+")[0] == "test"
        #: The guests run on this machine, so that its files and processes are theirs.
        self.is_local = not self.is_test and not scheme.netloc

    def _ask(self, what: str, function: Callable[..., _T], *arguments: object) -> _T:
        """Call libvirt with the time limit.

        Raises:
            BackendError: it fails, or does not answer.
        """
        answers: queue.SimpleQueue[tuple[Optional[_T], Optional[BaseException]]]
        answers = queue.SimpleQueue()

        def work() -> None:
            try:
                answers.put((function(*arguments), None))
            except BaseException as error:
                answers.put((None, error))

        threading.Thread(target=work, daemon=True, name=f"libvirt {what}").start()
        try:
            answer, error = answers.get(timeout=self._timeout)
        except queue.Empty:
            self._abandon()
            raise BackendTimeoutError(
                f"libvirt ({self._named}) did not {what} within {self._timeout:g} seconds; look "
                f"at its daemon (systemctl status virtqemud libvirtd), or raise --timeout"
            ) from None
        if error is not None:
            raise self._translated(what, error) from None
        return answer  # type: ignore[return-value]  # None is an answer like any other

    def _translated(self, what: str, error: BaseException) -> BaseException:
        """Return libvirt's error as one of ours; any other as it is."""
        libvirt = self._libvirt
        if not isinstance(error, libvirt.libvirtError):
            return error
        code = error.get_error_code()
        text = f"libvirt ({self._named}) could not {what}: {error.get_error_message() or error}"
        if code in (
            libvirt.VIR_ERR_AUTH_FAILED,
            libvirt.VIR_ERR_AUTH_CANCELLED,
            libvirt.VIR_ERR_AUTH_UNAVAILABLE,
            libvirt.VIR_ERR_ACCESS_DENIED,
            libvirt.VIR_ERR_OPERATION_DENIED,
        ):
            return BackendPermissionError(
                f"{text}; run as root or as a member of the group libvirt"
            )
        if what == "connect":
            return BackendUnavailableError(
                f"{text}; start its daemon (systemctl start virtqemud.socket or libvirtd), name "
                f"another with --connect, or judge files with --xml"
            )
        return BackendError(text)

    def _abandon(self) -> None:
        """Never close the connection: that call would wait for the one that hangs."""
        connection = getattr(self, "_connection", None)
        if connection is not None:
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(connection))

    def host(self) -> tuple[Optional[Host], Sequence[Unreadable]]:
        """Return the host; the test driver has none."""
        if self.is_test:
            return None, ()
        host = Host(name=self._ask("tell the host's name", self._connection.getHostname))
        unreadable: list[Unreadable] = []
        try:
            model = self._ask("tell its security model", self._connection.getSecurityModel)
            host = evolve(host, secmodels=(model[0],) if model[0] else ())
        except BackendTimeoutError:
            raise
        except BackendError as error:
            unreadable.append(Unreadable("libvirt's security model", str(error)))
        if self.is_local:
            host, missing = _selinux.host_facts(host)
            unreadable.extend(missing)
            if self.uri == "qemu:///system":
                host = evolve(host, dynamic_range=_procfs.daemon_range())
            return host, unreadable
        mode = self._remote_mode()
        if mode is None:
            unreadable.append(
                Unreadable(
                    "SELinux mode",
                    f"{host.name} is not this machine, and no running guest tells it; run there",
                )
            )
        return evolve(host, mode=mode), unreadable

    def _remote_mode(self) -> Optional[Mode]:
        """Return what a guest's label tells of the mode of a host that is not this one."""
        flags = self._libvirt.VIR_CONNECT_LIST_DOMAINS_ACTIVE
        for domain in self._ask("list guests", self._connection.listAllDomains, flags):
            try:
                label, enforcing = self._ask("tell a label", domain.securityLabel)
            except BackendTimeoutError:
                raise
            except BackendError:
                continue
            if label:
                return Mode.ENFORCING if enforcing else Mode.PERMISSIVE
        return None

    def notes(self) -> Sequence[str]:
        """Return which guests vanished while they were read."""
        return self._notes

    def volume_path(self, image: Image) -> Optional[str]:
        """Return the path of a storage volume, or None if libvirt has none for it."""
        if image.name not in self._volumes:
            pool, _, volume = image.name.partition("/")
            try:
                self._volumes[image.name] = self._ask(
                    f"find the volume {image.name}", self._volume, pool, volume
                )
            except BackendTimeoutError:
                raise
            except BackendError as error:
                self._notes.append(str(error))
                self._volumes[image.name] = None
        return self._volumes[image.name]

    def _volume(self, pool: str, volume: str) -> Optional[str]:
        found = self._connection.storagePoolLookupByName(pool).storageVolLookupByName(volume)
        path: str = found.path()
        return path if path.startswith("/") else None

    def guests(self, progress: Progress) -> Iterator[Union[Guest, Unreadable]]:
        """Yield every guest; what vanishes meanwhile is noted, what hangs is reported."""
        domains = self._ask("list guests", self._connection.listAllDomains, 0)
        questions: queue.SimpleQueue[Any] = queue.SimpleQueue()
        answers: queue.SimpleQueue[Any] = queue.SimpleQueue()
        waiting = {}
        for number, domain in enumerate(domains):
            waiting[number] = domain.name()
            questions.put((number, domain))

        def work() -> None:
            while True:
                try:
                    number, domain = questions.get_nowait()
                except queue.Empty:
                    return
                try:
                    answers.put((number, self._describe(domain), None))
                except BaseException as error:
                    answers.put((number, None, error))

        for _ in range(min(_THREADS, len(domains))):
            threading.Thread(target=work, daemon=True, name="libvirt guests").start()
        while waiting:
            try:
                number, answer, error = answers.get(timeout=self._timeout)
            except queue.Empty:
                self._abandon()
                for name in waiting.values():
                    yield Unreadable(
                        f"guest {name}",
                        f"libvirt did not describe it within {self._timeout:g} seconds; a job "
                        f"on it may hang (virsh domjobinfo {name}), or raise --timeout",
                        name,
                    )
                return
            name = waiting.pop(number)
            yield from self._guest(name, answer, error)
            progress(len(domains) - len(waiting), len(domains))

    def _describe(self, domain: Any) -> tuple[str, Optional[str]]:
        """Return a guest's XML, and its process's context where only libvirt can tell that."""
        xml: str = domain.XMLDesc(0)
        label: Optional[str] = None
        if not self.is_local and not self.is_test and domain.isActive():
            label = domain.securityLabel()[0] or None
        return xml, label

    def _guest(
        self, name: str, answer: Optional[tuple[str, Optional[str]]], error: Optional[BaseException]
    ) -> Iterator[Union[Guest, Unreadable]]:
        if error is not None:
            translated = self._translated(f"describe {name}", error)
            if not isinstance(translated, BackendError):
                raise translated
            gone = error.get_error_code() == self._libvirt.VIR_ERR_NO_DOMAIN  # type: ignore[attr-defined]
            if gone:
                self._notes.append(f"guest {name} vanished while it was read")
            else:
                yield Unreadable(f"guest {name}", str(translated), name)
            return
        if answer is None:
            raise BackendDataError(f"libvirt described guest {name} with nothing")
        xml, label = answer
        try:
            for guest in parse_document(xml.encode("utf-8", "surrogateescape"), self.uri):
                if label is not None:
                    process = Process(pid=None, context=label, source=f"libvirt at {self.uri}")
                    guest = evolve(guest, process=process)
                yield guest
        except DomainXMLError as malformed:
            yield Unreadable(f"guest {name}", malformed.reason, name)


def _bindings() -> ModuleType:
    """Import libvirt's bindings.

    Raises:
        BackendUnavailableError: they are not installed.
    """
    try:
        import libvirt
    except ImportError as error:
        raise BackendUnavailableError(
            f"libvirt's Python bindings are missing ({error}); install python3-libvirt, or judge "
            f"files with --xml"
        ) from None
    # Without a handler the C library prints each error that it also raises to stderr.
    libvirt.registerErrorHandler(_silent, None)
    module: ModuleType = libvirt
    return module


def _silent(context: object, error: object) -> None:
    """Leave the report of an error to the exception."""

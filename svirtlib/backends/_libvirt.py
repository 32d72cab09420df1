"""Guests from libvirt, over a read-only connection.

Every call can hang: libvirt has no time limit of its own, and a guest with a stuck job blocks
each question about it. Calls therefore run in threads of their own that are left behind when
they do not answer in time; the process can still end, as the threads are daemons. Once libvirt
has been given up, it is not asked again, not even to close the connection.
"""

from __future__ import annotations

import contextlib
import errno
import queue
import threading
import time
from collections.abc import Iterator, Sequence
from types import ModuleType
from typing import Any, Callable, Optional, TypeVar, Union

from attr import evolve

from svirtlib.errors import (
    BackendDataError,
    BackendError,
    BackendPermissionError,
    BackendTimeoutError,
    BackendUnavailableError,
    DomainXMLError,
    SelectionError,
    quote,
)
from svirtlib.guests import Guest, Host, Image, Mode, Process, Unreadable
from svirtlib.ports import Progress

__all__ = ["DEFAULT_TIMEOUT", "LibvirtGuests"]

_T = TypeVar("_T")

#: A guest's XML, and its process's context where libvirt was asked for it.
_Description = tuple[str, Optional[str]]

#: Seconds without any answer after which libvirt counts as hung.
DEFAULT_TIMEOUT = 30.0

#: Pools whose volumes are devices, which have no folder of their own.
_POOLS_OF_DEVICES = frozenset({"disk", "iscsi", "iscsi-direct", "logical", "mpath", "scsi"})

#: Seconds that closing a connection may take; nothing depends on it any more.
_CLOSING_TIMEOUT = 2.0

#: Seconds after which an interrupt is seen for sure.
_TURN = 0.5

#: Questions under way at once on the one connection. The daemon works at five of a client
#: (``max_client_requests``); the others wait on its side, so that it never waits for us.
_THREADS = 8


class _Reading:
    """Questions about all guests, asked from now on by threads that nobody need wait for.

    Attributes:
        waiting: names of the guests that are still to be told of, by number. Whoever takes an
            answer removes its guest.
        answers: each guest's number with its description or an error, as they come.
    """

    def __init__(self, domains: Sequence[Any], describe: Callable[[Any], _Description]) -> None:
        self.waiting: dict[int, str] = {}
        self.answers: queue.SimpleQueue[tuple[int, Optional[_Description], Optional[Exception]]] = (
            queue.SimpleQueue()
        )
        self._questions: queue.SimpleQueue[tuple[int, Any]] = queue.SimpleQueue()
        self._describe = describe
        for question in enumerate(domains):
            self._questions.put(question)
        for _ in range(min(_THREADS, len(domains))):
            threading.Thread(target=self._work, daemon=True, name="libvirt guests").start()
        self.waiting.update((number, domain.name()) for number, domain in enumerate(domains))

    def _work(self) -> None:
        while True:
            try:
                number, domain = self._questions.get_nowait()
            except queue.Empty:
                return
            try:
                self.answers.put((number, self._describe(domain), None))
            except Exception as error:  # noqa: BLE001 - whoever takes the answer judges it
                self.answers.put((number, None, error))


class LibvirtGuests:
    """The guests of one libvirt connection.

    Args:
        uri: what to connect to; None for libvirt's own default (``LIBVIRT_DEFAULT_URI``,
            ``libvirt.conf``, then what it finds).
        timeout: seconds without any answer after which libvirt counts as hung.
        devices: read consoles and other devices too.

    Attributes:
        uri: the connection's own word on what it leads to.
        is_test: it leads to libvirt's test driver; its guests run nowhere.
        is_local: the guests run on this machine, so that its files and processes are theirs.
        is_system: it leads to the system daemon of this machine.

    Raises:
        BackendError: the bindings are missing, or libvirt cannot be reached in time.
    """

    def __init__(
        self,
        uri: Optional[str] = None,
        *,
        timeout: float = DEFAULT_TIMEOUT,
        devices: bool = False,
    ) -> None:
        self._libvirt = _bindings()
        self._devices = devices
        self._timeout = timeout
        self._named = uri or "the default connection"
        self._notes: list[str] = []
        self._gaps: list[Unreadable] = []
        self._pools: dict[str, Any] = {}
        self._volumes: dict[str, Union[str, Unreadable, None]] = {}
        self._mode: Optional[Mode] = None
        self._gone: Optional[BackendTimeoutError] = None
        self._connection = self._ask("connect", self._libvirt.openReadOnly, uri)
        self.uri: str = self._ask("tell its URI", self._connection.getURI)
        scheme, _, rest = self.uri.partition("://")
        driver, _, transport = scheme.partition("+")
        server, _, path = rest.partition("?")[0].partition("/")
        self.is_test = driver == "test"
        # The transport "ext" runs a program of the user's that may lead anywhere.
        self.is_local = not self.is_test and not server and transport != "ext"
        self.is_system = self.is_local and driver == "qemu" and path == "system"
        self._name: Optional[str] = self._try("tell the host's name", self._connection.getHostname)
        model = self._try("tell its security model", self._connection.getSecurityModel)
        self._secmodels: tuple[str, ...] = (model[0],) if model and model[0] else ()
        domains = self._ask("list its guests", self._connection.listAllDomains, 0)
        self._reading = _Reading(domains, self._describe)
        # To load the XML library takes as long as a hundred guests; libvirt works meanwhile.
        from svirtlib.domainxml import parse_document

        self._parse = parse_document

    def close(self) -> None:
        """Close the connection, unless libvirt was given up; a hang does no harm."""
        if self._gone is None:
            with contextlib.suppress(BackendError):
                self._ask("close the connection", self._connection.close, limit=_CLOSING_TIMEOUT)

    def _ask(
        self, what: str, function: Callable[..., _T], *arguments: object, limit: float = 0
    ) -> _T:
        """Call libvirt with the time limit.

        Raises:
            BackendError: it fails, or does not answer.
        """
        if self._gone is not None:
            raise self._gone
        # An answer stands in a tuple: it may be anything, None or an exception too.
        answers: queue.SimpleQueue[Union[tuple[_T], Exception]] = queue.SimpleQueue()

        def work() -> None:
            try:
                answers.put((function(*arguments),))
            except Exception as error:  # noqa: BLE001 - whoever asked judges it
                answers.put(error)

        threading.Thread(target=work, daemon=True, name=f"libvirt {what}").start()
        try:
            answer = _wait(answers, limit or self._timeout)
        except queue.Empty:
            raise self._given_up(what) from None
        if isinstance(answer, Exception):
            raise self._translated(what, answer) from None
        return answer[0]

    def _try(self, what: str, function: Callable[..., _T]) -> Optional[_T]:
        """Call libvirt; a failure is reported with the inventory.

        Raises:
            BackendTimeoutError: it does not answer.
        """
        try:
            return self._ask(what, function)
        except BackendTimeoutError:
            raise
        except BackendError as error:
            self._gaps.append(Unreadable(f"libvirt at {self.uri}", str(error)))
            return None

    def _given_up(self, what: str) -> BackendTimeoutError:
        """Take note that libvirt hangs."""
        self._gone = BackendTimeoutError(
            f"libvirt ({self._named}) did not {what} within {self._timeout:g} seconds; look at its "
            f"daemon (systemctl status virtqemud libvirtd), or raise --timeout"
        )
        connection = getattr(self, "_connection", None)
        if connection is not None:
            import ctypes

            # Were it ever freed, at the end of the process say, that would wait for libvirt too.
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(connection))
        return self._gone

    def _translated(self, what: str, error: BaseException) -> BaseException:
        """Return libvirt's error as one of ours; any other as it is."""
        libvirt = self._libvirt
        if isinstance(error, UnicodeError):
            return BackendDataError(
                f"libvirt ({self._named}) could not {what}: text that is not UTF-8"
            )
        if not isinstance(error, libvirt.libvirtError):
            return error
        code = error.get_error_code()
        text = f"libvirt ({self._named}) could not {what}: {error.get_error_message() or error}"
        # With a failed system call libvirt tells its errno.
        refused = code == libvirt.VIR_ERR_SYSTEM_ERROR and error.get_int1() == errno.EACCES
        if refused or code in (
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

    def host(self) -> tuple[Optional[Host], Sequence[Unreadable]]:
        """Return the host; the test driver has none."""
        if self.is_test:
            return None, ()
        host = Host(name=self._name, secmodels=self._secmodels)
        if not self.is_local:
            if self._mode is not None:
                return evolve(host, mode=self._mode), self._gaps
            unknown = Unreadable(
                "SELinux mode",
                f"{self._name or self.uri} is not this machine, and no running guest tells it; "
                f"run svirt-label there",
            )
            return host, [*self._gaps, unknown]
        from svirtlib.backends import _selinux

        host, gaps = _selinux.host_facts(host)
        if self.is_system:
            from svirtlib.backends import _procfs

            host = evolve(host, dynamic_range=_procfs.daemon_range())
        return host, [*self._gaps, *gaps]

    def notes(self) -> Sequence[str]:
        """Return which guests vanished while they were read."""
        return self._notes

    def volume_path(self, image: Image, *, in_use: bool) -> Union[str, Unreadable, None]:
        """Return the path of a storage volume, or None if it has none."""
        name = image.name
        if name not in self._volumes:
            try:
                self._volumes[name] = self._ask(f"find the volume {name}", self._volume, name)
            except BackendError as error:
                self._volumes[name] = Unreadable(f"volume {name}", str(error))
        path = self._volumes[name]
        if path is None and in_use:
            return Unreadable(
                f"volume {name}",
                f"libvirt has no such volume, or its pool is not active (virsh pool-start "
                f"{name.partition('/')[0]})",
            )
        # A volume in the network (RBD, Gluster) has a path of another kind.
        return None if isinstance(path, str) and not path.startswith("/") else path

    def _volume(self, name: str) -> Optional[str]:
        """Return libvirt's path of the volume called ``pool/volume``, or None without one."""
        libvirt = self._libvirt
        pool, _, volume = name.partition("/")
        try:
            if pool not in self._pools:
                self._pools[pool] = self._connection.storagePoolLookupByName(pool)
            path: str = self._pools[pool].storageVolLookupByName(volume).path()
            return path
        except libvirt.libvirtError as error:
            if error.get_error_code() in (
                libvirt.VIR_ERR_NO_STORAGE_POOL,
                libvirt.VIR_ERR_NO_STORAGE_VOL,
                libvirt.VIR_ERR_OPERATION_INVALID,
            ):
                return None
            raise

    def pool_paths(self, name: str) -> list[str]:
        """Return the folder of a storage pool, or its volumes where they are devices.

        Raises:
            SelectionError: there is no such pool, or it has no path on this host.
            BackendError: libvirt does not tell.
        """
        from svirtlib.xmltree import parse_tree

        libvirt = self._libvirt
        try:
            pool = self._ask(f"find the pool {name}", self._find_pool, name)
            if pool is None:
                raise SelectionError(
                    f"{quote(name)}: libvirt at {self.uri} has no such storage pool; 'virsh "
                    f"pool-list --all' shows which it has"
                )
            document = self._ask(f"describe the pool {name}", pool.XMLDesc)
        except libvirt.libvirtError as error:
            raise BackendError(f"libvirt at {self.uri}: {error}") from None
        tree = parse_tree(document.encode(), f"pool {name}", "a storage pool")
        path: Optional[str] = tree.findtext("target/path")
        if tree.get("type") in _POOLS_OF_DEVICES:
            volumes = self._ask(f"list the volumes of the pool {name}", pool.listAllVolumes)
            paths = sorted(volume.path() for volume in volumes)
        else:
            paths = [] if path is None else [path]
        paths = [path for path in paths if path.startswith("/")]
        if not paths:
            raise SelectionError(
                f"{quote(name)}: this pool ({tree.get('type')}) has no folder and no device on "
                f"this host to label; if it does not run, start it with 'virsh pool-start'"
            )
        return paths

    def _find_pool(self, name: str) -> Optional[Any]:
        try:
            return self._connection.storagePoolLookupByName(name)
        except self._libvirt.libvirtError as error:
            if error.get_error_code() == self._libvirt.VIR_ERR_NO_STORAGE_POOL:
                return None
            raise

    def guests(self, progress: Progress) -> Iterator[Union[Guest, Unreadable]]:
        """Yield every guest; what vanishes meanwhile is noted, what hangs is reported.

        Raises:
            BackendTimeoutError: libvirt describes none of them in time.
        """
        waiting = self._reading.waiting
        total = len(waiting)
        while waiting:
            try:
                number, answer, error = _wait(self._reading.answers, self._timeout)
            except queue.Empty:
                given_up = self._given_up("describe a guest")
                if len(waiting) == total:
                    raise given_up from None
                for name in waiting.values():
                    yield self._unanswered(name)
                return
            outcome = self._guest(waiting.pop(number), answer, error)
            if outcome is not None:
                yield outcome
            progress(total - len(waiting), total)

    def _unanswered(self, name: str) -> Unreadable:
        return Unreadable(
            f"guest {name}",
            f"libvirt did not describe it within {self._timeout:g} seconds; a job on it may hang "
            f"(virsh domjobinfo {name}), or raise --timeout",
            name,
        )

    def _describe(self, domain: Any) -> _Description:
        """Return a guest's XML, and its process's context where only libvirt can tell that."""
        xml: str = domain.XMLDesc(0)
        # The handle knows without a question whether the guest ran when it was listed.
        if self.is_local or self.is_test or domain.ID() == -1:
            return xml, None
        try:
            label, enforcing = domain.securityLabel()
        except self._libvirt.libvirtError as error:
            if error.get_error_code() in (
                self._libvirt.VIR_ERR_NO_SUPPORT,
                self._libvirt.VIR_ERR_OPERATION_INVALID,
            ):
                # The driver has no labels, or the guest has stopped.
                return xml, None
            raise
        if label:
            self._mode = Mode.ENFORCING if enforcing else Mode.PERMISSIVE
        return xml, label or None

    def _guest(
        self, name: str, answer: Optional[_Description], error: Optional[Exception]
    ) -> Union[Guest, Unreadable, None]:
        """Return a guest, why it could not be read, or None if it is gone."""
        if answer is None:
            if error is None:
                raise BackendDataError(f"libvirt described guest {name} with nothing")
            translated = self._translated(f"describe {name}", error)
            if not isinstance(translated, BackendError):
                raise translated
            if (
                isinstance(error, self._libvirt.libvirtError)
                and error.get_error_code() == self._libvirt.VIR_ERR_NO_DOMAIN
            ):
                self._notes.append(f"guest {name} vanished while it was read")
                return None
            return Unreadable(f"guest {name}", str(translated), name)
        xml, label = answer
        try:
            data = xml.encode("utf-8", "surrogateescape")
            (guest,) = self._parse(data, self.uri, devices=self._devices)
        except DomainXMLError as malformed:
            return Unreadable(f"guest {name}", malformed.reason, name)
        if label is None:
            return guest
        process = Process(pid=None, context=label, source=f"libvirt at {self.uri}")
        return evolve(guest, process=process)


def _wait(answers: queue.SimpleQueue[_T], seconds: float) -> _T:
    """Return the next answer.

    Raises:
        queue.Empty: there is none in time.
    """
    if not answers.empty():
        # Nobody else takes answers; most are there before they are asked for.
        return answers.get()
    # In short turns: an interrupt that comes just before a wait is seen only after it.
    deadline = time.monotonic() + seconds
    while True:
        left = deadline - time.monotonic()
        try:
            return answers.get(timeout=max(0.0, min(left, _TURN)))
        except queue.Empty:
            if left <= _TURN:
                raise


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

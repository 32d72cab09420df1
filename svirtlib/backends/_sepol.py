"""libsepol by ctypes: a binary policy loaded, and asked as the kernel would be.

Why libsepol, and by ctypes: its decisions are computed by the code that the kernel's came
from, it is on every host with SELinux, and works with any Python. ``selinux.audit2why`` exists
for the distribution's Python alone and takes milliseconds for a denial, as it tries all
booleans; it is asked only which boolean would help. setools decides nothing.

libsepol holds the policy that decides in variables of its own: one in a process, until another
is put there. :class:`Engine` puts its policy there when it is asked and another was there, under a
lock; whoever opens the same policy once more finds it there, and waits for nothing.
"""

from __future__ import annotations

import ctypes
import os
import re
import struct
import threading
from collections.abc import Mapping
from functools import cached_property, lru_cache
from typing import Any, ClassVar, Optional

from attr import frozen

from svirtlib.errors import (
    BackendDataError,
    BackendUnavailableError,
    PolicyError,
    SelectionError,
    quote,
)

__all__ = ["Class", "Engine", "Verdict"]

_MAGIC = 0xF97CFF8C
_MODULE_MAGICS = frozenset({0xF97CFF8D, 0xF97CFF8F})
_NAME = b"SE Linux"

#: What sepol_compute_av_reason() says of the permissions that were denied.
DENIED_BY_TYPE, DENIED_BY_CONSTRAINT, DENIED_BY_ROLE, DENIED_BY_BOUNDS = 1, 2, 4, 8
_SHOW_GRANTED = 1
_ALL = 0xFFFFFFFF

#: Its table of contexts is searched from end to end: from here on loading the policy again
#: is cheaper.
_MOST_CONTEXTS = 4000


_STRUCTURE = ("role", "roletype", "type", "typealiasactual", "typepermissive", "user", "userrole")
#: ``SEPOL_PROTO_TCP``
_TCP = 1

_STATEMENT = re.compile(rf"^\(({'|'.join(_STRUCTURE)}) (.*)\)$", re.MULTILINE)


class _Decision(ctypes.Structure):
    _fields_: ClassVar[Any] = [
        (name, ctypes.c_uint32)
        for name in ("allowed", "decided", "auditallow", "auditdeny", "seqno")
    ]


@frozen
class Class:
    """A class of the policy.

    Attributes:
        number: the policy's number for it.
        permissions: bit of each permission by its name, in the policy's order.
    """

    number: int
    permissions: Mapping[str, int]

    def names(self, bits: int) -> tuple[str, ...]:
        """Return the names of the permissions in *bits*."""
        return tuple(name for name, bit in self.permissions.items() if bits & bit)


@frozen
class Verdict:
    """A decision about one permission with what libsepol says about it.

    Attributes:
        allowed: whether it is granted.
        stages: what denied it, a sum of the ``DENIED_BY_`` numbers.
        constraints: text of each constraint that was evaluated, one a line.
    """

    allowed: bool
    stages: int
    constraints: tuple[str, ...]


@lru_cache(maxsize=1)
def _library() -> Any:
    try:
        library = ctypes.CDLL("libsepol.so.2")
        library.sepol_compute_av_reason_buffer  # noqa: B018 - exported since 3.4
    except OSError:
        raise BackendUnavailableError(
            "a policy can be asked only with libsepol, which is missing; install libsepol2 "
            "(Debian) or libsepol (Fedora)"
        ) from None
    except AttributeError:
        raise BackendUnavailableError(
            "this libsepol is too old to be asked; a policy needs libsepol 3.4 or newer"
        ) from None
    library.sepol_av_perm_to_string.restype = ctypes.c_char_p
    library.sepol_bool_get_name.restype = ctypes.c_char_p
    library.sepol_context_get_type.restype = ctypes.c_char_p
    library.sepol_port_get_con.restype = ctypes.c_void_p
    library.sepol_handle_create.restype = ctypes.c_void_p
    # What it has to say is said by exceptions here, not on standard error.
    library.sepol_debug(0)
    return library


@lru_cache(maxsize=1)
def _libc() -> Any:
    libc = ctypes.CDLL(None)
    libc.fmemopen.restype = ctypes.c_void_p
    libc.open_memstream.restype = ctypes.c_void_p
    return libc


class _Stream:
    """A C stream that reads bytes in memory."""

    def __init__(self, image: bytes) -> None:
        self._image = image

    def __enter__(self) -> ctypes.c_void_p:
        stream = _libc().fmemopen(self._image, ctypes.c_size_t(len(self._image)), b"r")
        if not stream:
            raise BackendUnavailableError("out of memory while a policy was read")
        self._stream = ctypes.c_void_p(stream)
        return self._stream

    def __exit__(self, *exception: object) -> None:
        _libc().fclose(self._stream)


class Engine:
    """A kernel policy that answers.

    Raises:
        BackendUnavailableError: there is no libsepol that can be asked.
        BackendDataError: *image* is no kernel policy that this libsepol reads.
    """

    _lock: ClassVar[threading.RLock] = threading.RLock()
    #: What libsepol holds, and its number for each context that it was asked about.
    _loaded: ClassVar[Optional[bytes]] = None
    _sids: ClassVar[dict[str, Optional[int]]] = {}

    def __init__(self, image: bytes, source: str) -> None:
        self._sepol = _library()
        self._image = image
        self._source = source
        self._classes: dict[str, Class] = {}
        self._check_header()
        with Engine._lock:
            self._activate()

    @classmethod
    def forget(cls) -> None:
        """Take what libsepol holds for unknown: something else has put a policy there."""
        with cls._lock:
            cls._loaded = None

    def context_id(self, context: str) -> Optional[int]:
        """Return libsepol's number for a context, or None if the policy refuses it.

        A number is good until the next call from outside; only this module keeps some.
        """
        with Engine._lock:
            self._activate()
            return self._context_id(context)

    def canonical(self, context: str) -> Optional[str]:
        """Return a context as the kernel prints it, or None if the policy refuses it."""
        with Engine._lock:
            number = self.context_id(context)
            if number is None:
                return None
            text = ctypes.c_void_p()
            size = ctypes.c_size_t()
            if self._sepol.sepol_sid_to_context(
                ctypes.c_uint32(number), ctypes.byref(text), ctypes.byref(size)
            ):
                return None
            try:
                return ctypes.string_at(text.value or 0).decode("utf-8", "replace")
            finally:
                _libc().free(text)

    def target_class(self, name: str) -> Class:
        """Return a class of the policy.

        Raises:
            PolicyError: the policy has no such class.
        """
        known = self._classes.get(name)
        if known is not None:
            return known
        with Engine._lock:
            self._activate()
            number = ctypes.c_uint16()
            if "\0" in name or self._sepol.sepol_string_to_security_class(
                name.encode(), ctypes.byref(number)
            ):
                raise PolicyError(
                    f"the policy {self._source} has no class {quote(name)}; files are of the class "
                    f"file, block devices blk_file, directories dir, guests process"
                )
            permissions = {}
            for place in range(32):
                text: bytes = self._sepol.sepol_av_perm_to_string(
                    number, ctypes.c_uint32(1 << place)
                )
                if text and not text.startswith(b"<"):
                    permissions[text.decode("utf-8", "replace").strip()] = 1 << place
            permissions.pop("", None)
            self._classes[name] = Class(number.value, permissions)
            return self._classes[name]

    def allowed(self, source: str, target: str, target_class: Class) -> Optional[int]:
        """Return the bits of what *source* may do, or None if the policy refuses a context."""
        with Engine._lock:
            ids = self._pair(source, target)
            if ids is None:
                return None
            decision = _Decision()
            reason = ctypes.c_uint()
            self._computed(
                self._sepol.sepol_compute_av_reason(
                    ids[0],
                    ids[1],
                    ctypes.c_uint16(target_class.number),
                    ctypes.c_uint32(_ALL),
                    ctypes.byref(decision),
                    ctypes.byref(reason),
                )
            )
            return int(decision.allowed)

    def verdict(self, source: str, target: str, target_class: Class, bit: int) -> Optional[Verdict]:
        """Return a decision on one permission with its reasons; None for a refused context."""
        with Engine._lock:
            ids = self._pair(source, target)
            if ids is None:
                return None
            decision = _Decision()
            reason = ctypes.c_uint()
            text = ctypes.c_void_p()
            self._computed(
                self._sepol.sepol_compute_av_reason_buffer(
                    ids[0],
                    ids[1],
                    ctypes.c_uint16(target_class.number),
                    ctypes.c_uint32(bit),
                    ctypes.byref(decision),
                    ctypes.byref(reason),
                    ctypes.byref(text),
                    ctypes.c_uint(_SHOW_GRANTED),
                )
            )
            told = b""
            if text.value:
                told = ctypes.string_at(text.value)
                _libc().free(text)
            lines = tuple(line for line in told.decode("utf-8", "replace").split("\n") if line)
            return Verdict(bool(decision.allowed & bit), int(reason.value), lines)

    @property
    def may_be_permissive(self) -> bool:
        """Whether any type of the policy is permissive; read from the head of the file.

        The head has, after the counts of its tables, two sets of numbers: the policy's
        capabilities and, from version 23 on, the permissive types (libsepol, policydb.c). Most
        policies have none, which spares the search for their names.
        """
        length = struct.unpack_from("<I", self._image, 4)[0]
        version, _, _, _ = struct.unpack_from("<4I", self._image, 8 + length)
        if version < 23:
            return False
        place = 8 + length + 16
        nodes = struct.unpack_from("<3I", self._image, place)[2]
        place += 12 + 12 * nodes
        return bool(struct.unpack_from("<3I", self._image, place)[2])

    def _check_header(self) -> None:
        """Say what is wrong with a file better than libsepol, which says that it is wrong."""
        image = self._image
        if len(image) < 8:
            raise BackendDataError(f"{self._source} is no binary policy: it is too short")
        magic, length = struct.unpack_from("<2I", image)
        if magic in _MODULE_MAGICS or image[:3] == b"BZh":
            raise BackendDataError(
                f"{self._source} is a policy module, not the policy of a kernel; the installed "
                f"one is /etc/selinux/<type>/policy/policy.<version>"
            )
        if magic != _MAGIC:
            raise BackendDataError(
                f"{self._source} is no binary policy; the installed one is "
                f"/etc/selinux/<type>/policy/policy.<version>"
            )
        if image[8 : 8 + length] != _NAME:
            raise BackendDataError(
                f"{self._source} is a policy for {quote(image[8:24].decode('ascii', 'replace'))}, "
                f"not for SELinux"
            )
        if len(image) < 8 + length + 16:
            raise BackendDataError(f"{self._source} is cut short; copy or build it anew")
        version = struct.unpack_from("<I", image, 8 + length)[0]
        lowest = self._sepol.sepol_policy_kern_vers_min()
        highest = self._sepol.sepol_policy_kern_vers_max()
        if not lowest <= version <= highest:
            raise BackendDataError(
                f"{self._source} is a policy of version {version}, and libsepol here reads "
                f"{lowest} to {highest}; use a newer libsepol, or have it built for one of these"
            )

    def _load(self) -> None:
        Engine._loaded = None
        Engine._sids.clear()
        with _Stream(self._image) as stream:
            failed = self._sepol.sepol_set_policydb_from_file(stream)
        if failed:
            raise BackendDataError(
                f"{self._source} is damaged or cut short: libsepol does not read it; copy or "
                f"build it anew"
            )
        Engine._loaded = self._image

    def _activate(self) -> None:
        if Engine._loaded != self._image or len(self._sids) >= _MOST_CONTEXTS:
            self._load()
        # One object from now on, which takes no time to compare.
        self._image = Engine._loaded or self._image

    def _context_id(self, context: str) -> Optional[int]:
        try:
            return self._sids[context]
        except KeyError:
            pass
        number = ctypes.c_uint32()
        encoded = context.encode("utf-8", "surrogateescape")
        refused = (
            b"\0" in encoded
            or _has_tail(context)
            or self._sepol.sepol_context_to_sid(
                encoded, ctypes.c_size_t(len(encoded) + 1), ctypes.byref(number)
            )
        )
        self._sids[context] = None if refused else number.value
        return self._sids[context]

    def _pair(self, source: str, target: str) -> Optional[tuple[ctypes.c_uint32, ctypes.c_uint32]]:
        # Once, before both: what comes between the two must not load the policy again.
        self._activate()
        one, other = self._context_id(source), self._context_id(target)
        if one is None or other is None:
            return None
        return ctypes.c_uint32(one), ctypes.c_uint32(other)

    def _computed(self, error: int) -> None:
        if error:
            raise BackendDataError(f"libsepol cannot decide by {self._source} (error {error})")

    # --- The policy as a table: booleans, users, and its text ---------------------------------

    def with_booleans(self, states: Mapping[str, bool]) -> bytes:
        """Return the policy with booleans in other states.

        Raises:
            SelectionError: the policy has no such boolean.
        """
        with _Table(self._image, self._source) as table:
            known = table.booleans()
            for name, state in states.items():
                if name not in known:
                    from difflib import get_close_matches

                    near = get_close_matches(name, known, 1)
                    hint = f"; did you mean {near[0]!r}?" if near else ""
                    raise SelectionError(
                        f"the policy {self._source} has no boolean {quote(name)}{hint}"
                    )
                table.set_boolean(name, state)
            return table.image()

    def booleans(self) -> dict[str, bool]:
        """Return the state of each boolean of the policy."""
        return self._records[0]

    def tcp_ports(self) -> tuple[tuple[int, int, str], ...]:
        """Return first port, last port and type of each statement about TCP, in their order."""
        return self._records[1]

    @cached_property
    def _records(self) -> tuple[dict[str, bool], tuple[tuple[int, int, str], ...]]:
        # What takes time is to read the policy once more.
        with _Table(self._image, self._source) as table:
            return table.booleans(), table.tcp_ports()

    def statements(self) -> Mapping[str, tuple[tuple[str, ...], ...]]:
        """Return the statements of the policy that tell its structure, by their keyword.

        From the text form that libsepol writes (CIL), which has one of them a line; each comes
        as its words after the keyword.
        """
        with _Table(self._image, self._source) as table:
            text = table.statements()
        found: dict[str, list[tuple[str, ...]]] = {keyword: [] for keyword in _STRUCTURE}
        for match in _STATEMENT.finditer(text):
            words = match.group(2).replace("(", " ").replace(")", " ").split()
            if words:
                found[match.group(1)].append(tuple(words))
        return {keyword: tuple(statements) for keyword, statements in found.items()}


class _Table:
    """A policy as libsepol's records see it; apart from the one that decides."""

    def __init__(self, image: bytes, source: str) -> None:
        self._sepol = _library()
        self._image = image
        self._source = source
        self._handle = ctypes.c_void_p()
        self._policy = ctypes.c_void_p()

    def __enter__(self) -> _Table:  # noqa: PYI034 - typing has no Self before 3.11
        sepol = self._sepol
        self._handle = ctypes.c_void_p(sepol.sepol_handle_create())
        sepol.sepol_msg_set_callback(self._handle, None, None)
        file = ctypes.c_void_p()
        if sepol.sepol_policydb_create(ctypes.byref(self._policy)):
            raise BackendUnavailableError("out of memory while a policy was read")
        sepol.sepol_policy_file_create(ctypes.byref(file))
        sepol.sepol_policy_file_set_handle(file, self._handle)
        with _Stream(self._image) as stream:
            sepol.sepol_policy_file_set_fp(file, stream)
            failed = sepol.sepol_policydb_read(self._policy, file)
        sepol.sepol_policy_file_free(file)
        if failed:
            self.__exit__()
            raise BackendDataError(f"{self._source} is damaged or cut short")
        return self

    def __exit__(self, *exception: object) -> None:
        self._sepol.sepol_policydb_free(self._policy)
        self._sepol.sepol_handle_destroy(self._handle)

    def booleans(self) -> dict[str, bool]:
        found: dict[str, bool] = {}

        def note(record: int) -> None:
            boolean = ctypes.c_void_p(record)
            name: bytes = self._sepol.sepol_bool_get_name(boolean)
            found[name.decode("utf-8", "replace")] = bool(self._sepol.sepol_bool_get_value(boolean))

        self._each(self._sepol.sepol_bool_iterate, note)
        return dict(sorted(found.items()))

    def tcp_ports(self) -> tuple[tuple[int, int, str], ...]:
        found: list[tuple[int, int, str]] = []
        sepol = self._sepol

        def note(record: int) -> None:
            port = ctypes.c_void_p(record)
            if sepol.sepol_port_get_proto(port) == _TCP:
                context = ctypes.c_void_p(sepol.sepol_port_get_con(port))
                name: bytes = sepol.sepol_context_get_type(context)
                low, high = sepol.sepol_port_get_low(port), sepol.sepol_port_get_high(port)
                found.append((low, high, name.decode()))

        self._each(sepol.sepol_port_iterate, note)
        return tuple(found)

    def _each(self, iterate: Any, note: Any) -> None:
        prototype = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)

        def call(record: int, _: object) -> int:
            note(record)
            return 0

        iterate(self._handle, self._policy, prototype(call), None)

    def set_boolean(self, name: str, state: bool) -> None:
        sepol = self._sepol
        key, boolean = ctypes.c_void_p(), ctypes.c_void_p()
        failed = sepol.sepol_bool_key_create(self._handle, name.encode(), ctypes.byref(key))
        failed = failed or sepol.sepol_bool_query(
            self._handle, self._policy, key, ctypes.byref(boolean)
        )
        if not failed:
            sepol.sepol_bool_set_value(boolean, int(state))
            failed = sepol.sepol_bool_set(self._handle, self._policy, key, boolean)
            sepol.sepol_bool_free(boolean)
        sepol.sepol_bool_key_free(key)
        if failed:
            raise BackendDataError(f"libsepol cannot set the boolean {name} of {self._source}")

    def image(self) -> bytes:
        data, size = ctypes.c_void_p(), ctypes.c_size_t()
        if self._sepol.sepol_policydb_to_image(
            self._handle, self._policy, ctypes.byref(data), ctypes.byref(size)
        ):
            raise BackendDataError(f"libsepol cannot write {self._source} with other booleans")
        try:
            return ctypes.string_at(data.value or 0, size.value)
        finally:
            _libc().free(data)

    def statements(self) -> str:
        libc = _libc()
        data, size = ctypes.c_void_p(), ctypes.c_size_t()
        stream = ctypes.c_void_p(libc.open_memstream(ctypes.byref(data), ctypes.byref(size)))
        failed = self._sepol.sepol_kernel_policydb_to_cil(stream, self._policy)
        libc.fclose(stream)
        try:
            if failed:
                raise BackendDataError(f"libsepol cannot list what {self._source} holds")
            return ctypes.string_at(data.value or 0, size.value).decode("utf-8", "replace")
        finally:
            libc.free(data)


def _has_tail(context: str) -> bool:
    """Tell whether a range has more than two levels: libsepol drops the rest, the kernel not.

    Names of sensitivities and categories with a "-" in them would look so too; no policy that
    is known has any.
    """
    return context.partition(":")[2].partition(":")[2].partition(":")[2].count("-") > 1


def memory_file(image: bytes) -> int:
    """Return a descriptor of a file in memory, for libraries that take nothing but a path."""
    descriptor = os.memfd_create("svirt-label-policy")
    with os.fdopen(os.dup(descriptor), "wb") as stream:
        stream.write(image)
    return descriptor

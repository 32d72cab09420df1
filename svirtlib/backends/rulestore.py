"""Local file-context rules and booleans in the policy store, changed through libsemanage.

All changes of one call are one transaction: libsemanage rebuilds the files of the policy in a
folder of their own and puts them in place with a rename, or leaves everything as it was.

libsemanage is called in a process of its own. It takes the first root that it is told for the
root of all stores, whatever it is told later, and writes its messages to standard error.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import re
import tempfile
from collections.abc import Iterator, Sequence
from types import ModuleType
from typing import Any, Callable, NoReturn, Optional, TypeVar

from attr import evolve, frozen

from svirtlib.errors import (
    BackendDataError,
    BackendError,
    BackendPermissionError,
    BackendTimeoutError,
    BackendUnavailableError,
    StorageError,
    quote,
)

__all__ = [
    "BooleanStore",
    "LocalBoolean",
    "LocalRule",
    "RuleStore",
    "StoredBoolean",
    "live_booleans",
]

#: The letters of ``semanage fcontext -f`` with libsemanage's names for them.
_KINDS = {
    "a": "SEMANAGE_FCONTEXT_ALL",
    "f": "SEMANAGE_FCONTEXT_REG",
    "d": "SEMANAGE_FCONTEXT_DIR",
    "c": "SEMANAGE_FCONTEXT_CHAR",
    "b": "SEMANAGE_FCONTEXT_BLOCK",
    "s": "SEMANAGE_FCONTEXT_SOCK",
    "l": "SEMANAGE_FCONTEXT_LINK",
    "p": "SEMANAGE_FCONTEXT_PIPE",
}

_NONE = "<<none>>"

#: The state of each boolean of the running policy: ``1 1`` where it is on.
_BOOLEANS = "/sys/fs/selinux/booleans"

_T = TypeVar("_T")


@frozen
class LocalRule:
    """A local rule, or that there shall be none.

    Attributes:
        pattern: its pattern.
        kind: which files it is for, a letter of ``semanage fcontext -f``.
        context: what they get (``<<none>>``: are left alone), or None for no such rule.
    """

    pattern: str
    kind: str
    context: Optional[str]


@frozen
class LocalBoolean:
    """A boolean as an administrator has set it.

    Attributes:
        name: its name.
        local: what the store says of it in place of the policy's own default; None: nothing.
        live: its state in the kernel; None where that is another matter.
    """

    name: str
    local: Optional[bool]
    live: Optional[bool] = None


@frozen
class StoredBoolean:
    """A boolean as it is.

    Attributes:
        stored: its state at the next boot, by the store.
        local: what an administrator has set in place of the policy's default; None: nothing.
        live: its state in the kernel; None where the store is not that of the policy that runs.
    """

    stored: bool
    local: Optional[bool]
    live: Optional[bool]


def live_booleans() -> dict[str, bool]:
    """Return the booleans of the policy that the kernel has loaded; none without SELinux.

    Raises:
        OSError: they cannot be read.
    """
    states = {}
    for name in os.listdir(_BOOLEANS) if os.path.isdir(_BOOLEANS) else ():
        with open(os.path.join(_BOOLEANS, name), encoding="ascii") as stream:
            states[name] = stream.read().split()[:1] == ["1"]
    return states


class _PolicyStore:
    """The policy store of a host, or of an image below a root.

    Args:
        root: the folder that the store lies below.
        policy: name of the policy, such as ``default`` or ``targeted``.

    Raises:
        BackendUnavailableError: the bindings or the store are missing.
        BackendPermissionError: the store may not be changed by this user.
        BackendDataError: the store is damaged.
    """

    def __init__(self, root: str, policy: str) -> None:
        self._semanage = _bindings()
        self._root = os.path.abspath(root)
        self._policy = policy
        self.folder = os.path.join(self._root, "var/lib/selinux", policy)
        active = os.path.join(self.folder, "active")
        if not os.path.isdir(active):
            self._explain(active)

    def _explain(self, active: str) -> None:
        """Say why there is no store.

        Raises:
            BackendError: always.
        """
        try:
            os.listdir(self.folder)
        except PermissionError:
            raise BackendPermissionError(
                f"{self.folder}: the policy store cannot be read; run as root"
            ) from None
        except FileNotFoundError:
            raise BackendUnavailableError(
                f"{self.folder}: there is no policy store, so no rule can be changed; install the "
                f"policy's package, or name another --root"
            ) from None
        raise BackendDataError(
            f"{active}: the policy store has no active policy; if there is a folder 'previous' "
            f"beside it, a change was cut off while it was put in place: rename that to 'active'"
        )

    @contextlib.contextmanager
    def _connected(self) -> Iterator[Any]:
        semanage = self._semanage
        semanage.semanage_set_root("" if self._root == "/" else self._root)
        handle = semanage.semanage_handle_create()
        if handle is None:
            raise BackendUnavailableError("libsemanage does not start: no memory")
        try:
            with _messages() as messages:
                semanage.semanage_select_store(handle, self._policy, semanage.SEMANAGE_CON_DIRECT)
                # Rules of files are none of the kernel's business, and booleans it is told by
                # themselves: no policy is to be loaded.
                semanage.semanage_set_reload(handle, 0)
                if semanage.semanage_access_check(handle) < semanage.SEMANAGE_CAN_READ:
                    raise BackendPermissionError(
                        f"{self.folder}: the policy store may not be read by this user; run as root"
                    )
                try:
                    if semanage.semanage_connect(handle) < 0:
                        raise OSError
                except OSError as error:
                    raise self._failed("it cannot be opened", error, messages()) from None
            yield handle
        finally:
            if semanage.semanage_is_connected(handle):
                semanage.semanage_disconnect(handle)
            semanage.semanage_handle_destroy(handle)

    def _failed(self, what: str, error: OSError, messages: str) -> Exception:
        said = "; ".join(
            line for line in messages.splitlines() if "not in password file" not in line
        )
        text = f"{self.folder}: {what}"
        if "transaction lock" in said or "read lock" in said:
            return BackendTimeoutError(
                f"{self.folder}: the policy store is locked by another program (semanage, "
                f"semodule, a package's installation); try again when it has ended"
            )
        unknown = re.search(r"type (\S+) is not defined", said)
        if unknown is not None:
            return StorageError(f"{text}: it has no type {unknown[1]}; nothing was changed")
        wrong = re.search(r"invalid MLS context (\S+)", said)
        if wrong is not None:
            return StorageError(f"{text}: it has no level {wrong[1]}; nothing was changed")
        if "is not defined" in said or "invalid context" in said or "regex" in said:
            return StorageError(f"{text}: {quote(said)}; nothing was changed")
        if "ead-only file system" in said:
            return BackendPermissionError(f"{text}: it lies on a read-only file system")
        if "o space left" in said:
            return BackendError(f"{text}: its file system is full; nothing was changed")
        if "ermission denied" in said:
            return BackendPermissionError(f"{text}: {quote(said)}; run as root")
        return BackendError(f"{text}: {quote(said) if said else error.strerror}")

    def _transaction(self, write: Callable[[Any], bool], refused: str) -> None:
        """Write in one transaction; *write* tells whether there is anything to commit."""
        semanage = self._semanage
        with self._connected() as handle, _messages() as messages:
            try:
                if semanage.semanage_begin_transaction(handle) < 0:
                    raise OSError
            except OSError as error:
                raise self._failed("the change cannot begin", error, messages()) from None
            if not write(handle):
                return
            try:
                if semanage.semanage_commit(handle) < 0:
                    raise OSError
            except OSError as error:
                raise self._failed(refused, error, messages()) from None


class RuleStore(_PolicyStore):
    """Local file-context rules in the policy store of a host, or of an image below a root."""

    def local_rules(self) -> dict[tuple[str, str], str]:
        """Return the contexts of all local rules by pattern and kind.

        Raises:
            BackendError: the store cannot be read.
        """
        return _isolated(self._read)

    def _read(self) -> dict[tuple[str, str], str]:
        with self._connected() as handle:
            return self._listed(handle)

    def change(self, wanted: Sequence[LocalRule], *, again: bool = False) -> None:
        """Make the local rules be as *wanted*, all in one transaction.

        Args:
            wanted: the rules; those that are so already are not touched.
            again: write the policy's files anew even so, for they do not say what the store
                says.

        Raises:
            StorageError: the policy refuses a rule.
            BackendTimeoutError: somebody else changes the store.
            BackendError: the store cannot be changed; it is as it was.
        """
        _isolated(lambda: self._change(wanted, again=again))

    def _change(self, wanted: Sequence[LocalRule], *, again: bool) -> None:
        def write(handle: Any) -> bool:
            held = self._listed(handle)
            changed = False
            for rule in wanted:
                key = (rule.pattern, rule.kind)
                if held.get(key) == rule.context and not again:
                    continue
                if rule.context is None and key not in held:
                    # Only what was changed is written anew.
                    self._write(handle, evolve(rule, context=_NONE))
                self._write(handle, rule)
                changed = True
            return changed

        self._transaction(write, "the policy refuses the rules")

    def _write(self, handle: Any, rule: LocalRule) -> None:
        semanage = self._semanage
        kind = getattr(semanage, _KINDS[rule.kind])
        code, key = semanage.semanage_fcontext_key_create(handle, rule.pattern, kind)
        _check(code, rule.pattern)
        try:
            if rule.context is None:
                _check(semanage.semanage_fcontext_del_local(handle, key), rule.pattern)
                return
            code, record = semanage.semanage_fcontext_create(handle)
            _check(code, rule.pattern)
            try:
                _check(
                    semanage.semanage_fcontext_set_expr(handle, record, rule.pattern), rule.pattern
                )
                semanage.semanage_fcontext_set_type(record, kind)
                # Without a context the rule says <<none>>.
                if rule.context != _NONE:
                    code, context = semanage.semanage_context_from_string(handle, rule.context)
                    _check(code, rule.context)
                    try:
                        _check(
                            semanage.semanage_fcontext_set_con(handle, record, context),
                            rule.pattern,
                        )
                    finally:
                        semanage.semanage_context_free(context)
                _check(semanage.semanage_fcontext_modify_local(handle, key, record), rule.pattern)
            finally:
                semanage.semanage_fcontext_free(record)
        finally:
            semanage.semanage_fcontext_key_free(key)

    def _listed(self, handle: Any) -> dict[tuple[str, str], str]:
        semanage = self._semanage
        letters = {getattr(semanage, name): letter for letter, name in _KINDS.items()}
        code, records = semanage.semanage_fcontext_list_local(handle)
        _check(code, "local rules")
        rules = {}
        for record in records:
            context = semanage.semanage_fcontext_get_con(record)
            text = _NONE
            if context:
                code, text = semanage.semanage_context_to_string(handle, context)
                _check(code, "local rules")
            pattern = semanage.semanage_fcontext_get_expr(record)
            rules[pattern, letters[semanage.semanage_fcontext_get_type(record)]] = text
            semanage.semanage_fcontext_free(record)
        return rules


class BooleanStore(_PolicyStore):
    """Booleans in the policy store of a host or of an image below a root; in the kernel too."""

    def states(self, names: Sequence[str]) -> dict[str, StoredBoolean]:
        """Return those of some booleans that the store's policy knows.

        Raises:
            BackendError: they cannot be read.
        """
        stored, local = _isolated(self._read)
        try:
            live = live_booleans() if self._root == "/" else {}
        except OSError as error:
            raise BackendError(f"{_BOOLEANS}: cannot be read: {error.strerror}") from None
        return {
            name: StoredBoolean(stored[name], local.get(name), live.get(name))
            for name in names
            if name in stored
        }

    def _read(self) -> tuple[dict[str, bool], dict[str, bool]]:
        semanage = self._semanage
        with self._connected() as handle:
            return (
                self._values(semanage.semanage_bool_list(handle)),
                self._values(semanage.semanage_bool_list_local(handle)),
            )

    def _values(self, listed: tuple[int, Sequence[Any]]) -> dict[str, bool]:
        code, records = listed
        _check(code, "booleans")
        values = {}
        for record in records:
            name = self._semanage.semanage_bool_get_name(record)
            values[name] = bool(self._semanage.semanage_bool_get_value(record))
            self._semanage.semanage_bool_free(record)
        return values

    def change(self, wanted: Sequence[LocalBoolean]) -> None:
        """Make booleans be as *wanted*, all in one transaction, in the kernel as well.

        Args:
            wanted: booleans that the policy knows; it would take others in silence.

        Raises:
            BackendTimeoutError: somebody else changes the store.
            BackendError: the store cannot be changed.
        """
        _isolated(lambda: self._change(wanted))

    def _change(self, wanted: Sequence[LocalBoolean]) -> None:
        def write(handle: Any) -> bool:
            for boolean in wanted:
                self._write(handle, boolean)
            return bool(wanted)

        self._transaction(write, "the booleans cannot be set")

    def _write(self, handle: Any, wanted: LocalBoolean) -> None:
        semanage = self._semanage
        code, key = semanage.semanage_bool_key_create(handle, wanted.name)
        _check(code, wanted.name)
        try:
            # One that is not there yet cannot be deleted.
            self._set(handle, key, wanted.name, bool(wanted.local), live=False)
            if wanted.local is None:
                _check(semanage.semanage_bool_del_local(handle, key), wanted.name)
            if wanted.live is not None:
                self._set(handle, key, wanted.name, wanted.live, live=True)
        finally:
            semanage.semanage_bool_key_free(key)

    def _set(self, handle: Any, key: Any, name: str, value: bool, *, live: bool) -> None:
        semanage = self._semanage
        code, record = semanage.semanage_bool_create(handle)
        _check(code, name)
        try:
            _check(semanage.semanage_bool_set_name(handle, record, name), name)
            semanage.semanage_bool_set_value(record, int(value))
            put = semanage.semanage_bool_set_active if live else semanage.semanage_bool_modify_local
            _check(put(handle, key, record), name)
        finally:
            semanage.semanage_bool_free(record)


def _check(code: int, what: str) -> None:
    if code < 0:
        raise BackendError(f"libsemanage cannot handle {quote(what)}: it answers {code}")


def _bindings() -> ModuleType:
    try:
        import semanage
    except ImportError:
        raise BackendUnavailableError(
            "the bindings of libsemanage are missing, so no rule can be changed; install "
            "python3-semanage (Debian) or python3-libsemanage (Fedora)"
        ) from None
    module: ModuleType = semanage
    return module


def _isolated(work: Callable[[], _T]) -> _T:
    """Do some work in a process of its own and return what it returns.

    Should we be killed, it still ends what it began.

    Raises:
        SvirtError: what it raises.
        BackendError: it was killed.
    """
    reads, writes = os.pipe()
    pid = os.fork()
    if pid == 0:
        _answer(work, writes)
    os.close(writes)
    with os.fdopen(reads, "rb") as stream:
        data = stream.read()
    os.waitpid(pid, 0)
    if not data:
        raise BackendError("the process that called libsemanage was killed; try again")
    result, error = pickle.loads(data)  # noqa: S301 - from a process that we forked
    if error is not None:
        raise error
    answer: _T = result
    return answer


def _answer(work: Callable[[], object], writes: int) -> NoReturn:
    """Do the work, tell what came of it, and end this process."""
    answer: tuple[object, Optional[BaseException]]
    try:
        try:
            answer = work(), None
        except BaseException as error:  # noqa: BLE001 - our parent raises it
            answer = None, error
        with os.fdopen(writes, "wb") as stream:
            pickle.dump(answer, stream)
    finally:
        os._exit(0)


@contextlib.contextmanager
def _messages() -> Iterator[Callable[[], str]]:
    """Catch what libsemanage, and setfiles that it runs, write to standard error.

    Their messages alone say what is wrong; the bindings' errors do not. Yields what returns
    the text written until then.
    """
    with tempfile.TemporaryFile() as file:
        saved = os.dup(2)
        os.dup2(file.fileno(), 2)

        def text() -> str:
            file.seek(0)
            return file.read(65536).decode("utf-8", "replace")

        try:
            yield text
        finally:
            os.dup2(saved, 2)
            os.close(saved)

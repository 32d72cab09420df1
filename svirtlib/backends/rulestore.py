"""Local file-context rules in the policy store, changed through libsemanage.

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

__all__ = ["LocalRule", "RuleStore"]

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


class RuleStore:
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
        with self._connected() as handle, _messages() as messages:
            semanage = self._semanage
            try:
                if semanage.semanage_begin_transaction(handle) < 0:
                    raise OSError
            except OSError as error:
                raise self._failed("the change cannot begin", error, messages()) from None
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
            if not changed:
                return
            try:
                if semanage.semanage_commit(handle) < 0:
                    raise OSError
            except OSError as error:
                raise self._failed("the policy refuses the rules", error, messages()) from None

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
                # Rules of files are none of the kernel's business: no policy is to be loaded.
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

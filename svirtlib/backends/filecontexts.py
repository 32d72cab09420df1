"""The file-context rules of a host or of an unpacked image, and which of them a path gets."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from typing import Optional, Union

from svirtlib.backends._selabel import Selabel
from svirtlib.context import Context
from svirtlib.errors import (
    BackendDataError,
    BackendError,
    BackendPermissionError,
    BackendUnavailableError,
    InvalidContextError,
)
from svirtlib.filematch import UNDECIDED, FolderRules, Matcher, Undecided
from svirtlib.filerules import (
    Equivalence,
    Rule,
    clean_path,
    in_order,
    parse_compiled,
    parse_equivalences,
    parse_rules,
    substitute,
)
from svirtlib.selinuxconfig import policy_name

__all__ = ["FileContexts", "policy_folder"]


def policy_folder(root: str = "/") -> str:
    """Return the folder of the policy that is configured below *root*.

    Raises:
        BackendUnavailableError: there is no configuration, or no such policy.
    """
    selinux = os.path.join(root, "etc/selinux")
    try:
        name = policy_name(os.fsdecode(_read(os.path.join(selinux, "config"))))
    except FileNotFoundError:
        raise BackendUnavailableError(
            f"{selinux}/config: there is no such file, so there is no SELinux policy; install "
            f"one (Debian: selinux-policy-default, Fedora: selinux-policy-targeted)"
            + ("" if root == "/" else " below this root, or name another --root")
        ) from None
    if not name or name in (".", "..") or "/" in name:
        raise BackendDataError(f"{selinux}/config: SELINUXTYPE={name!a} names no policy")
    return os.path.join(selinux, name)


class FileContexts:
    """The file-context rules of one policy.

    Attributes:
        path: the file ``file_contexts``; what belongs to it lies beside it.
        rules: all rules, the strongest first.
        sources: the files that were read, in the order in which libselinux reads them.
        local: what ``semanage fcontext -e`` made equal.
        distributed: what the policy makes equal; asked after *local*.
        customizable: types that ``restorecon`` leaves alone, as an administrator may have set
            them on purpose.
        notes: what there is to say of how answers were found.
    """

    def __init__(self, path: str) -> None:
        """Read ``file_contexts`` and what lies beside it.

        Raises:
            BackendUnavailableError: there is no such file.
            BackendPermissionError: it cannot be read.
            BackendDataError: libselinux would not load it.
        """
        self.path = path
        sources: list[str] = []
        rules: list[Rule] = []
        for suffix in ("", ".homedirs", ".local"):
            rules += _load(path + suffix, sources, required=not suffix)
        self.rules: Sequence[Rule] = tuple(in_order(rules))
        self.sources: Sequence[str] = tuple(sources)
        self.local: Sequence[Equivalence] = _equivalences(f"{path}.subs")
        self.distributed: Sequence[Equivalence] = _equivalences(f"{path}.subs_dist")
        self.customizable: frozenset[str] = _customizable(path)
        self.notes: list[str] = []
        self._selabel = _selabel(path)
        self._contexts: dict[str, Context] = {}
        self._matcher = Matcher(self.rules, self.local, self.distributed)
        self._last: tuple[bytes, FolderRules] = b"", self._matcher.folder(b"/")
        self._trusted = True
        self._compared: set[Optional[Rule]] = set()

    @classmethod
    def open(cls, root: str = "/") -> FileContexts:
        """Return the rules of the policy that is configured below *root*.

        Raises:
            BackendUnavailableError: there is no policy.
            BackendPermissionError: it cannot be read.
            BackendDataError: libselinux would not load it.
        """
        return cls(os.path.join(policy_folder(root), "contexts/files/file_contexts"))

    @property
    def policy(self) -> str:
        """The policy's name: that of the folder which holds its files."""
        return self.path.split("/")[-4] if self.path.count("/") > 3 else self.path

    def translate(self, path: bytes) -> bytes:
        """Return the path for which rules are asked in place of *path*: equivalences applied."""
        path = clean_path(path)
        first = substitute(path, self.local)
        if first is not None:
            path = first
        second = substitute(path, self.distributed)
        return path if second is None else second

    def lookup(self, path: bytes, mode: int) -> Optional[Context]:
        """Return the context that the rules give a path, or None where they give none.

        Args:
            path: absolute; it need not exist.
            mode: ``st_mode``, of which the kind counts; 0 for any kind.

        Raises:
            BackendDataError: the rule holds no context, or no regular expression.
        """
        text = self.lookup_text(path, mode)
        return None if text is None else self.context(text)

    def lookup_text(self, path: bytes, mode: int) -> Optional[str]:
        """Return the context of :meth:`lookup` as the rule has it written.

        Raises:
            BackendUnavailableError: only libselinux can tell, and it is not installed.
            BackendDataError: a rule that had to be asked holds no regular expression.
        """
        path = clean_path(path)
        above, slash, name = path.rpartition(b"/")
        if not slash or not name or not stat.S_IFMT(mode):
            return self._ask(path, mode)
        if above != self._last[0]:
            self._last = above, self.folder(above)
        return self.in_folder(self._last[1], above, name, mode)

    def folder(self, path: bytes) -> FolderRules:
        """Return what the rules say of what lies right in a folder, for :meth:`in_folder`.

        Args:
            path: the folder, absolute and clean; empty or ``/`` for the root.
        """
        return self._matcher.folder(path or b"/")

    def constant(self, rules: FolderRules, folder: bytes, kind: int) -> Union[Rule, bool, None]:
        """Return the rule for all files of a kind in a folder, None if none is for them.

        True if it depends on the names; then :meth:`in_folder` has to be asked.
        """
        rule = rules.constant(kind) if self._trusted else UNDECIDED
        if isinstance(rule, Undecided):
            return True
        self._compare(rule, folder + b"/x", kind)
        return rule if self._trusted else True

    def in_folder(self, rules: FolderRules, folder: bytes, name: bytes, mode: int) -> Optional[str]:
        """Return the context that a file gets, as the rule has it written, or None.

        Args:
            rules: what :meth:`folder` said of its folder.
            folder: the folder, empty for the root.
            name: the file's name in it.
            mode: its ``st_mode``.

        Raises:
            BackendUnavailableError: only libselinux can tell, and it is not installed.
            BackendDataError: a rule that had to be asked holds no regular expression.
        """
        rule = rules.answer(name, stat.S_IFMT(mode)) if self._trusted else UNDECIDED
        if isinstance(rule, Undecided):
            return self._ask(b"%s/%s" % (folder, name), mode)
        self._compare(rule, b"%s/%s" % (folder, name), mode)
        if not self._trusted:
            return self._ask(b"%s/%s" % (folder, name), mode)
        return None if rule is None else rule.context

    def rule(self, path: bytes, mode: int) -> Optional[Rule]:
        """Return the rule that decides on a path, or None where none does or it is not known.

        What it gives may still be None: ``<<none>>``.
        """
        path = clean_path(path)
        folder, _, name = path.rpartition(b"/")
        rule = self.folder(folder).answer(name, stat.S_IFMT(mode)) if name else UNDECIDED
        return None if isinstance(rule, Undecided) else rule

    def matching(self, path: bytes, mode: int) -> Iterator[Rule]:
        """Yield all rules that are for a path; the strongest first."""
        yield from self._matcher.matching(clean_path(path), stat.S_IFMT(mode))

    def _ask(self, path: bytes, mode: int) -> Optional[str]:
        if self._selabel is None:
            raise BackendUnavailableError(
                f"{os.fsdecode(path)!a}: only libselinux can tell which rule is for it; install "
                f"libselinux1 (Debian) or libselinux (Fedora)"
            )
        return self._selabel.lookup(path, mode)

    def _compare(self, rule: Optional[Rule], path: bytes, mode: int) -> None:
        """Compare an answer with libselinux's, the first time that a rule gives it.

        Versions of libselinux differ in details, and what counts is the one that is installed.
        """
        if rule in self._compared or self._selabel is None:
            return
        self._compared.add(rule)
        given = None if rule is None else rule.context
        if self._selabel.lookup(path, stat.S_IFMT(mode)) != given:
            self._trusted = False
            self.notes.append(
                f"the libselinux that is installed reads the rules otherwise than we do, first "
                f"for {os.fsdecode(path)!a}: it is asked about every file, which takes longer"
            )

    def context(self, text: str) -> Context:
        """Return the context that a rule has as *text*.

        Raises:
            BackendDataError: it is none.
        """
        found = self._contexts.get(text)
        if found is None:
            try:
                found = Context.parse(text)
            except InvalidContextError as error:
                raise BackendDataError(
                    f"{self.path}: a rule, here or in a file beside it, has an {error}"
                ) from None
            self._contexts[text] = found
        return found


def _selabel(path: str) -> Optional[Selabel]:
    """Open libselinux's own reading of the rules, or None where it is not installed."""
    try:
        return Selabel(path)
    except BackendUnavailableError:
        return None


def _load(path: str, sources: list[str], *, required: bool) -> list[Rule]:
    """Return the rules of a text file or of its compiled form, whichever libselinux takes.

    The compiled one counts unless the text is newer by a second: an edit within the second in
    which it was compiled has no effect.
    """
    compiled = f"{path}.bin"
    times = {name: time for name in (path, compiled) for time in [_modified(name)] if time}
    if not times:
        if required:
            raise BackendUnavailableError(
                f"{path}: there is no such file; install the policy anew, or name another --root"
            )
        return []
    names = sorted(times, key=lambda name: (times[name], name == compiled), reverse=True)
    for name in names:
        data = _read(name)
        try:
            rules = (parse_compiled if _is_compiled(data) else parse_rules)(data, name)
        except BackendDataError:
            # libselinux then takes the other one, if there is one.
            if name == names[-1]:
                raise
            continue
        sources.append(name)
        return rules
    return []


def _is_compiled(data: bytes) -> bool:
    return data[:4] in (b"\x8a\xff\x7c\xf9", b"\xf9\x7c\xff\x8a")


def _modified(path: str) -> int:
    """Return when a file was changed last, in whole seconds as libselinux sees it; 0 without."""
    try:
        return max(1, int(os.stat(path).st_mtime))
    except FileNotFoundError:
        return 0
    except OSError as error:
        raise BackendPermissionError(f"{path}: cannot be read: {error.strerror}") from None


def _equivalences(path: str) -> tuple[Equivalence, ...]:
    try:
        return tuple(parse_equivalences(_read(path)))
    except FileNotFoundError:
        return ()


def _customizable(path: str) -> frozenset[str]:
    folder = os.path.dirname(os.path.dirname(path))
    try:
        lines = _read(os.path.join(folder, "customizable_types")).splitlines()
    except FileNotFoundError:
        return frozenset()
    return frozenset(os.fsdecode(line.strip()) for line in lines if line.strip())


def _read(path: str) -> bytes:
    """Return a file's bytes.

    Raises:
        FileNotFoundError: there is none.
        BackendError: it cannot be read.
    """
    try:
        with open(path, "rb") as stream:
            return stream.read()
    except FileNotFoundError:
        raise
    except OSError as error:
        kind = BackendPermissionError if isinstance(error, PermissionError) else BackendError
        raise kind(f"{path}: cannot be read: {error.strerror}") from None

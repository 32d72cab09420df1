"""The labels that guests were started with, as the hook notes them.

It imports nothing but built-in modules: each start of a guest waits for it.
"""

import posix
import time

# Not typing's, whose import takes longer than all that the hook does.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Optional

__all__ = ["FOLDER", "State"]

#: Where they are noted; gone after a boot, as the guests are.
FOLDER = "/run/svirt-label/hook"

_HEADER = "svirt-label hook state 1"

#: More than any number of guests needs.
_MAX_BYTES = 16 * 1024 * 1024


class State:
    """The labels that guests were started with, by UUID; a file, and a lock while it is open.

    Between the ``start`` of a guest and its process there is nothing else that tells its level.
    It is a help, not the truth: where it is lost, the processes' own contexts remain.

    Attributes:
        entries: label, name and time (seconds since 1970) of each UUID.
        problem: what is wrong with the file, or an empty text.
    """

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._path = f"{folder}/state"
        self._lock: Optional[int] = None
        self._changed = False
        self.entries: dict[str, tuple[str, str, int]] = {}
        self.problem = ""

    def __enter__(self) -> "State":  # noqa: PYI034 - typing has Self since 3.11
        import fcntl

        try:
            self._make_folder()
            flags = posix.O_RDWR | posix.O_CREAT | posix.O_CLOEXEC | posix.O_NOFOLLOW
            self._lock = posix.open(f"{self._folder}/lock", flags, 0o600)
            fcntl.flock(self._lock, fcntl.LOCK_EX)
            self._load()
        except OSError as error:
            self.problem = f"the hook's state in {self._folder} cannot be used: {error.strerror}"
        return self

    def __exit__(self, *_: object) -> None:
        if self._lock is None:
            return
        try:
            if self._changed:
                self._save()
        except OSError as error:
            self.problem = f"the hook's state in {self._folder} cannot be kept: {error.strerror}"
        finally:
            posix.close(self._lock)
            self._lock = None

    def _make_folder(self) -> None:
        parent = self._folder.rpartition("/")[0]
        for folder, mode in ((parent, 0o755), (self._folder, 0o700)):
            try:
                posix.mkdir(folder, mode)
            except FileExistsError:
                continue
        status = posix.lstat(self._folder)
        if status.st_uid != posix.geteuid() or status.st_mode & 0o170022 != 0o040000:
            raise PermissionError(1, "it is no folder that this user alone may write to")

    def _load(self) -> None:
        flags = posix.O_RDONLY | posix.O_CLOEXEC | posix.O_NOFOLLOW | posix.O_NONBLOCK
        try:
            descriptor = posix.open(self._path, flags)
        except FileNotFoundError:
            return
        with open(descriptor, "rb") as stream:
            data = stream.read(_MAX_BYTES)
        lines = data.decode("utf-8", "replace").split("\n")
        if lines[0] != _HEADER:
            self._set_aside(f"it starts with {lines[0][:60]!a}, not {_HEADER!r}")
            return
        whole = lines.pop() == ""
        for line in lines[1:]:
            fields = line.split("\t", 3)
            if len(fields) == 4 and len(fields[0]) == 36 and fields[1].isdigit():
                self.entries[fields[0]] = (fields[2], fields[3], int(fields[1]))
            else:
                whole = False
        if not whole:
            self._set_aside("it is damaged; what can be read of it is kept")

    def _set_aside(self, reason: str) -> None:
        self.problem = (
            f"the hook's state, {self._path}: {reason}; the file was set aside as "
            "state.unreadable, and the processes of the guests still tell their labels"
        )
        posix.rename(self._path, f"{self._path}.unreadable")
        self._changed = True

    def note(self, uuid: str, label: str, name: str) -> None:
        """Take note of the label that a guest was started with."""
        known = self.entries.get(uuid)
        if known is None or known[:2] != (label, name):
            if "\t" in label or "\n" in label + name:
                return
            self.entries[uuid] = (label, name, int(time.time()))
            self._changed = True

    def forget(self, uuid: str) -> None:
        """Drop what is known of a guest."""
        if self.entries.pop(uuid, None) is not None:
            self._changed = True

    def _save(self) -> None:
        """Replace the file; never in part. It need not outlive the machine, so nothing waits."""
        lines = [_HEADER]
        for uuid, (label, name, since) in self.entries.items():
            lines.append(f"{uuid}\t{since}\t{label}\t{name}")
        flags = posix.O_WRONLY | posix.O_CREAT | posix.O_TRUNC | posix.O_CLOEXEC | posix.O_NOFOLLOW
        partial = f"{self._path}.new"
        with open(posix.open(partial, flags, 0o600), "wb") as stream:
            stream.write(("\n".join(lines) + "\n").encode("utf-8", "replace"))
        posix.replace(partial, self._path)

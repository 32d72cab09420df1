"""A host as an unpacked sosreport shows it: its guests, their processes, labels of files.

A report is somebody else's: links in it are followed as on the host that it was made on, and
none leads out of it. It holds what its maker's version and options collected, so that each
kind of file may be missing; what is then unknown is told, or not judged at all.

Where sos puts what (its plugins virsh, libvirt, selinux, process, host):
``sos_commands/virsh/virsh_-r_dumpxml_NAME``, ``run/libvirt/qemu/*.xml`` (libvirt's own records
of running guests), ``etc/libvirt/qemu/*.xml`` (definitions), ``sos_commands/selinux/ps_auxZww``,
``sestatus``, and listings that were asked for, ``ls_-lZ...``.
"""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Iterator, Sequence
from typing import Optional, Union

from attr import evolve, frozen

from svirtlib.backends._tree import Tree
from svirtlib.domainxml import OtherDocumentError, parse_document
from svirtlib.errors import DomainXMLError, SelectionError
from svirtlib.guests import FileLabel, Guest, Host, Image, Mode, Process, Unreadable
from svirtlib.inventory import guest_key
from svirtlib.ports import Progress
from svirtlib.selinuxconfig import policy_name

__all__ = ["SosReport"]

_COMMANDS = "/sos_commands"
_DUMPS = re.compile(r"virsh_(-r_)?dumpxml_")

#: ``user:role:type:range``; nothing else in a listing has three colons and no slash.
_CONTEXT = re.compile(r"[A-Za-z0-9_.-]+:[A-Za-z0-9_.-]+:[A-Za-z0-9_.-]+(:[^\s/]+)?")
_NAMED = re.compile(r"(?:^| )-name guest=((?:[^,]|,,)*?)(?:,[a-z-]+=\S*)*(?= -\S|$)")
_UUID = re.compile(r"(?:^| )-uuid ([0-9a-fA-F-]{36})(?: |$)")
_STATUS_PID = re.compile(rb"<domstatus\b[^>]*\bpid=['\"](\d+)['\"]")


@frozen
class _Qemu:
    pid: int
    context: str
    name: Optional[str]
    uuid: Optional[str]
    source: str


class SosReport:
    """What a sosreport holds: the guests, processes and files of a host.

    Args:
        path: the folder that the report was unpacked to, or the one that this lies in.

    Attributes:
        has_processes: it has a list of processes with their contexts.
        has_files: it has a listing of files with their contexts.
        tree: its files.

    Raises:
        SelectionError: there is no sosreport.
        BackendError: the folder cannot be opened.
    """

    def __init__(self, path: str) -> None:
        self.tree = _open(path)
        self._path = self.tree.root
        self._notes: list[str] = []
        self._pids: dict[str, int] = {}
        self._qemus = self._read_processes()
        self._labels, self._folders = self._read_listings()
        self.has_processes = self._qemus is not None
        self.has_files = bool(self._labels or self._folders)

    def close(self) -> None:
        """Give the folder back."""
        self.tree.close()

    # Guests.

    def guests(self, progress: Progress) -> Iterator[Union[Guest, Unreadable]]:
        """Yield the guests of all documents, and the documents that could not be read.

        Raises:
            DomainXMLError: there is no document of any guest.
        """
        documents = list(self._documents())
        if not documents:
            raise DomainXMLError(
                self._path,
                "the sosreport holds no guest: neither output of 'virsh dumpxml' nor libvirt's "
                "own files",
            )
        for done, (path, expected) in enumerate(documents, 1):
            yield from self._guests_of(path, expected=expected)
            progress(done, len(documents))

    def _documents(self) -> Iterator[tuple[str, bool]]:
        """Yield the paths of documents, and whether each must be one of a guest."""
        for plugin in ("virsh", "libvirt"):
            folder = f"{_COMMANDS}/{plugin}"
            for name in self.tree.names(folder):
                if _DUMPS.match(name):
                    yield f"{folder}/{name}", True
        for folder in ("/run/libvirt/qemu", "/var/run/libvirt/qemu", "/etc/libvirt/qemu"):
            for name in self.tree.names(folder):
                if name.endswith(".xml"):
                    yield f"{folder}/{name}", False

    def _guests_of(self, path: str, *, expected: bool) -> Iterator[Union[Guest, Unreadable]]:
        data = self.tree.read(path)
        if data is None:
            return
        if isinstance(data, Unreadable):
            yield data
            return
        # Such files start with a comment, or with what virsh had to complain about.
        start = data.find(b"<domain")
        status = _STATUS_PID.search(data[:65536])
        if expected and start > 0 and not data[:start].lstrip().startswith(b"<"):
            data = data[start:]
        try:
            found = parse_document(data, path.lstrip("/"))
        except OtherDocumentError:
            return
        except DomainXMLError as error:
            yield Unreadable(path.lstrip("/"), error.reason)
            return
        for guest in found:
            if status is not None:
                guest = evolve(guest, running=True)
                self._pids[guest_key(guest)] = int(status[1])
            yield guest

    def volume_path(self, image: Image, *, in_use: bool) -> Union[str, Unreadable, None]:
        """Return None: pools are described elsewhere in the report, if at all."""
        del image, in_use
        return None

    def notes(self) -> Sequence[str]:
        """Return what was passed over."""
        return self._notes

    # The host.

    def policy(self) -> Optional[str]:
        """Return the path of the binary policy that the report holds, or None."""
        name = self.policy_name()
        if name is None:
            return None
        folder = f"/etc/selinux/{name}/policy"
        root = os.path.realpath(self._path)
        for entry in reversed(self.tree.names(folder)):
            path = os.path.join(root, folder.lstrip("/"), entry)
            # Through no link: it could lead to any file of this machine.
            if entry.startswith("policy.") and os.path.realpath(path) == path:
                return path
        return None

    def policy_name(self) -> Optional[str]:
        """Return the name of the policy that was loaded, else of the one that is configured."""
        facts = _colon_lines(self._first(f"{_COMMANDS}/selinux/sestatus") or "")
        name = facts.get("Loaded policy name")
        if not name:
            text = self._first("/etc/selinux/config")
            name = None if text is None else policy_name(text)
        return None if not name or "/" in name or name in (".", "..") else name

    def host(self) -> tuple[Optional[Host], Sequence[Unreadable]]:
        """Return the host as ``sestatus`` and the policy's files show it."""
        facts = _colon_lines(self._first(f"{_COMMANDS}/selinux/sestatus") or "")
        name = (
            self._first(f"{_COMMANDS}/host/hostname")
            or self._first(f"{_COMMANDS}/general/hostname")
            or self._first("/etc/hostname")
            or ""
        ).strip()
        mode: Optional[Mode] = None
        if facts.get("SELinux status") == "disabled":
            mode = Mode.DISABLED
        elif facts.get("Current mode") in ("enforcing", "permissive"):
            mode = Mode(facts["Current mode"])
        if not name and mode is None:
            return None, ()
        host = Host(name=name.splitlines()[0] if name else None, mode=mode)
        policy = facts.get("Loaded policy name")
        host = evolve(host, policy=policy)
        if policy and "/" not in policy:
            text = self._first(f"/etc/selinux/{policy}/contexts/virtual_image_context") or ""
            lines = text.split("\n")
            host = evolve(
                host,
                image_context=lines[0] or host.image_context,
                content_context=(lines[1:2] or [""])[0] or host.content_context,
            )
        if mode is None:
            gap = Unreadable("SELinux mode", "the sosreport has no output of sestatus")
            return host, [gap]
        return host, ()

    def _first(self, path: str) -> Optional[str]:
        return self.tree.text(path)

    # Processes.

    def _read_processes(self) -> Optional[list[_Qemu]]:
        found: Optional[list[_Qemu]] = None
        for plugin in ("selinux", "process"):
            folder = f"{_COMMANDS}/{plugin}"
            for name in self.tree.names(folder):
                if name.startswith("ps") and "Z" in name and found is None:
                    text = self.tree.text(f"{folder}/{name}") or ""
                    found = _processes(text, f"{folder}/{name}"[1:])
        return found

    def of_guests(
        self, guests: Sequence[Guest]
    ) -> tuple[dict[str, Union[Process, Unreadable]], Sequence[Guest]]:
        """Return the process of each running guest, and guests that libvirt does not know."""
        qemus = self._qemus or []
        found: dict[str, Union[Process, Unreadable]] = {}
        accounted: set[int] = set()
        for guest in guests:
            if not guest.running or guest.virt_type not in ("kvm", "qemu"):
                continue
            stated = self._pids.get(guest_key(guest))
            mine = [
                qemu
                for qemu in qemus
                if (guest.uuid is not None and qemu.uuid == guest.uuid) or qemu.pid == stated
            ] or [qemu for qemu in qemus if qemu.uuid is None and qemu.name == guest.name]
            if len(mine) == 1:
                qemu = mine[0]
                accounted.add(qemu.pid)
                found[guest_key(guest)] = Process(qemu.pid, qemu.context, qemu.source)
            else:
                reason = f"{len(mine)} processes are its" if mine else "no process is its"
                found[guest_key(guest)] = Unreadable(
                    f"process of guest {guest.name}",
                    f"libvirt says that it runs, and in the sosreport's list {reason}",
                    guest.name,
                )
        known = {guest.uuid for guest in guests} | {guest.name for guest in guests}
        lost = [
            Guest(
                name=qemu.name,
                uuid=qemu.uuid,
                running=True,
                virt_type="qemu",
                source=qemu.source,
                process=Process(qemu.pid, qemu.context, qemu.source),
                known_to_libvirt=False,
            )
            for qemu in qemus
            if qemu.name is not None
            and qemu.pid not in accounted
            and not known & {qemu.uuid or qemu.name}
        ]
        return found, lost

    # Files.

    def _read_listings(self) -> tuple[dict[str, str], dict[str, dict[str, str]]]:
        """Return the contexts of paths, and of names in folders of which the report says no path.

        sos names a file after the command, with points for slashes; the folder that was listed
        can be recognized in it, but not be read from it.
        """
        labels: dict[str, str] = {}
        folders: dict[str, dict[str, str]] = {}
        for plugin in self.tree.names(_COMMANDS):
            for name in self.tree.names(f"{_COMMANDS}/{plugin}"):
                if not (name.startswith("ls_") and "Z" in name):
                    continue
                text = self.tree.text(f"{_COMMANDS}/{plugin}/{name}") or ""
                command = name.partition("_")[2].rpartition("_")[2]
                for folder, entry, context in _listed(text):
                    if entry.startswith("/"):
                        labels[posixpath.normpath(entry)] = context
                    elif folder:
                        labels[posixpath.normpath(f"{folder}/{entry}")] = context
                    else:
                        folders.setdefault(command, {})[entry] = context
        return labels, folders

    def look(self, path: str, pid: Optional[int]) -> Union[FileLabel, Unreadable, None]:
        """Return what a listing says of a path."""
        del pid
        context = self._labels.get(posixpath.normpath(path))
        if context is None:
            folder, _, entry = path.rpartition("/")
            context = self._folders.get(folder.replace("/", "."), {}).get(entry)
        if context is None:
            return Unreadable(path, "no listing in the sosreport has its label")
        return FileLabel(
            path=path,
            identity=f"file {posixpath.normpath(path)}",
            context=None if context == "?" else context,
        )

    def below(self, image: Image) -> Iterator[Union[Image, Unreadable]]:
        """Yield nothing: the images themselves are not in the report."""
        del image
        yield from ()


def _open(path: str) -> Tree:
    """Open the folder that holds ``sos_commands``: this one, or the only one in it."""
    tree = Tree(path)
    if tree.exists(_COMMANDS):
        return tree
    inside = [name for name in tree.names("/") if tree.exists(f"/{name}{_COMMANDS}")]
    linked = [name for name in inside if tree.link(f"/{name}") is not None]
    tree.close()
    if len(inside) == 1 and not linked:
        return Tree(posixpath.join(path, inside[0]))
    several = f"; it holds {len(inside)}, name one of them" if len(inside) > 1 else ""
    raise SelectionError(f"{path}: no unpacked sosreport (no folder sos_commands){several}")


def _colon_lines(text: str) -> dict[str, str]:
    pairs = (line.partition(":") for line in text.splitlines())
    return {key.strip(): value.strip() for key, colon, value in pairs if colon}


def _processes(text: str, source: str) -> Optional[list[_Qemu]]:
    """Return the QEMU processes of a list, or None if it is no list with contexts."""
    lines = text.splitlines()
    head = next((line.split() for line in lines if "LABEL" in line.split()[:1]), None)
    if head is None or "PID" not in head:
        return None
    found = []
    for line in lines:
        words = line.split(None, len(head) - 1)
        if len(words) < len(head) or not _CONTEXT.fullmatch(words[0]):
            continue
        command = words[-1]
        number = words[head.index("PID")]
        if not number.isdigit() or "qemu" not in command.split()[0]:
            continue
        name = _NAMED.search(command)
        uuid = _UUID.search(command)
        found.append(
            _Qemu(
                pid=int(number),
                context=words[0],
                name=name[1].replace(",,", ",") if name else None,
                uuid=uuid[1].lower() if uuid else None,
                source=source,
            )
        )
    return found


def _listed(text: str) -> Iterator[tuple[str, str, str]]:
    """Yield folder (empty if it is not told), name and context of each entry of a listing."""
    folder = ""
    for line in text.splitlines():
        if line.startswith("/") and line.endswith(":"):
            folder = line[:-1]
            continue
        match = _CONTEXT.search(line)
        if match is None:
            continue
        rest = line[match.end() :].strip()
        if line.lstrip().startswith(("-", "b", "c", "d", "p", "s")) and match.start() > 0:
            # The long form: size (or two numbers of a device), date and time stand before it.
            parts = re.match(
                r"(?:\d+,\s+)?\d[\d.]*[KMGTPE]?\s+(?:\w{3}\s+\d+\s+[\d:]+|[\d-]+\s+[\d:.]+(?:\s[+-]\d+)?)\s(.*)",
                rest,
            )
            if parts is None:
                continue
            rest = parts[1]
        if rest and rest not in (".", "..", "?"):
            yield folder, rest, match[0]

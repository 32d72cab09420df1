"""What a sosreport says of the storage of images: file-context rules, mounts, booleans.

sos' plugin selinux copies all of ``/etc/selinux``, and has the output of ``sestatus -b``; its
plugin filesys copies ``/proc/self/mountinfo``. No plugin lists images, so most reports tell of an
image no more than its path: enough to say which rule is for it.
"""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
from collections.abc import Iterator, Sequence
from typing import Optional

from attr import evolve

from svirtlib.backends._tree import Tree
from svirtlib.backends.filecontexts import FileContexts
from svirtlib.backends.mounts import Mount, mount_of, parse_mounts
from svirtlib.backends.storagefacts import added, placed
from svirtlib.errors import BackendError, BackendUnavailableError
from svirtlib.filesystems import FileSystemFacts
from svirtlib.guests import FileLabel, ImageKind, Inventory, Mode, PathRule, Unreadable

__all__ = ["with_storage"]

#: Fedora's rules have 0.5 MiB.
_MOST_BYTES = 64 * 1024 * 1024

_BOOLEANS = ("/sos_commands/selinux/sestatus_-b", "/sos_commands/selinux/getsebool_-a")

#: What an image is, by its kind; device nodes lie in the memory of the kernel.
_MODES = {ImageKind.FILE: stat.S_IFREG, ImageKind.DIR: stat.S_IFDIR}


def with_storage(inventory: Inventory, tree: Tree, policy: Optional[str]) -> Inventory:
    """Return the inventory of a sosreport with what the report says of the storage of images.

    Args:
        inventory: its guests, and the files that it lists.
        tree: the report.
        policy: name of the policy whose rules count.
    """
    data = tree.read("/proc/self/mountinfo")
    mounts = parse_mounts(data) if isinstance(data, bytes) else ()
    selinux = inventory.host.mode in (Mode.ENFORCING, Mode.PERMISSIVE)
    modes = {
        image.path: _MODES[image.kind]
        for guest in inventory.guests
        for image in guest.images
        if image.path is not None and image.kind in _MODES
    }
    known = {label.path for label in inventory.files}
    labels = [
        *inventory.files,
        *(FileLabel(path, path, None, seen=False) for path in modes if path not in known),
    ]
    gaps: list[Unreadable] = []
    with contextlib.ExitStack() as stack:
        rules = None
        try:
            rules = stack.enter_context(_rules(tree, policy))
        except BackendError as error:
            gaps.append(Unreadable("file-context rules", str(error)))
        if rules is None and not mounts:
            return evolve(inventory, unreadable=(*inventory.unreadable, *gaps))
        found = added(
            inventory,
            sorted(labels, key=lambda label: label.path),
            lambda label: _placed(label, modes.get(label.path), rules, mounts, selinux=selinux),
            lambda: _booleans(tree),
            gaps,
        )
    # Of a path of which nothing is known there is nothing to say.
    files = [label for label in found.files if label.seen or label.rule or label.filesystem]
    return evolve(found, files=tuple(files))


def _placed(
    label: FileLabel,
    mode: Optional[int],
    rules: Optional[tuple[FileContexts, str, str]],
    mounts: Sequence[Mount],
    *,
    selinux: bool,
) -> FileLabel:
    if label.path.startswith("/dev/") or mode is None:
        return label
    path = os.fsencode(os.path.normpath(label.path))
    mount = mount_of(path, mounts)
    if mount is not None:
        facts = FileSystemFacts(os.fsdecode(mount.point), mount.kind, mount.options, selinux)
        label = evolve(label, labelable=facts.labels)
    if rules is None:
        return placed(label, path, mode, None, mounts)
    contexts, here, there = rules
    label = placed(label, path, mode, contexts, mounts)
    rule = label.rule
    if rule is not None:
        # Where it stands in the report, not in our copy.
        shadowed = rule.shadowed and rule.shadowed.replace(here, there)
        label = evolve(
            label,
            rule=PathRule(rule.context, rule.pattern, rule.place.replace(here, there), shadowed),
        )
    return label


@contextlib.contextmanager
def _rules(tree: Tree, policy: Optional[str]) -> Iterator[Optional[tuple[FileContexts, str, str]]]:
    """Yield the rules of the report, where they lie now, and where in the report; None if none.

    They are copied: a link in the report may lead anywhere, and compiled rules of somebody else
    are nothing to hand to libselinux.

    Raises:
        BackendError: they cannot be read.
    """
    there = f"/etc/selinux/{policy}/contexts/files"
    if policy is None or not tree.exists(f"{there}/file_contexts"):
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="svirt-label.") as folder:
        here = os.path.join(folder, policy, "contexts", "files")
        os.makedirs(here)
        for suffix in ("", ".homedirs", ".local", ".subs", ".subs_dist"):
            data = tree.read(f"{there}/file_contexts{suffix}", _MOST_BYTES)
            if isinstance(data, Unreadable):
                raise BackendError(f"{data.what}: {data.reason}")
            if data is not None:
                with open(os.path.join(here, f"file_contexts{suffix}"), "wb") as stream:
                    stream.write(data)
        yield FileContexts(os.path.join(here, "file_contexts")), here, there.lstrip("/")


def _booleans(tree: Tree) -> dict[str, bool]:
    """Return the booleans that the report tells of.

    Raises:
        BackendUnavailableError: it tells of none.
    """
    for path in _BOOLEANS:
        words = (line.replace("-->", " ").split() for line in (tree.text(path) or "").splitlines())
        states = {
            pair[0]: pair[1] == "on"
            for pair in words
            if len(pair) == 2 and pair[1] in ("on", "off")
        }
        if states:
            return states
    raise BackendUnavailableError("the sosreport has no output of sestatus -b")

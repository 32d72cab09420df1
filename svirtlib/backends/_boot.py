"""What a host mounts, and what its kernel is told: now, at the next boot, in RAM disks."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Union

from svirtlib.backends._tree import Tree, lines_in, lines_of
from svirtlib.guests import Unreadable
from svirtlib.hostpractices import MountEntry, Setting

__all__ = ["read_initrd_settings", "read_kernel", "read_mounts"]


def read_mounts(tree: Tree, *, live: bool) -> Iterator[MountEntry]:
    yield from _fstab(tree, lines_in(tree, "/etc/fstab"))
    yield from _crypttab(lines_in(tree, "/etc/crypttab"))
    if not live:
        return
    for number, line in enumerate((tree.text("/proc/self/mounts") or "").splitlines(), 1):
        fields = line.split()
        if len(fields) >= 4:
            origin = f"/proc/self/mounts:{number}"
            yield MountEntry(fields[0], fields[1], fields[2], fields[3], origin)
    for line in (tree.text("/proc/swaps") or "").splitlines()[1:]:
        fields = line.split()
        if fields:
            yield MountEntry(fields[0], "swap", "swap", "", "/proc/swaps")


def _fstab(tree: Tree, lines: Iterable[tuple[str, str]]) -> Iterator[MountEntry]:
    for text, origin in lines:
        fields = text.split()
        if len(fields) >= 3:
            options = fields[3] if len(fields) > 3 else ""
            yield MountEntry(fields[0], fields[1], fields[2], options, origin)
        else:
            tree.unreadable[origin] = Unreadable(
                origin, "no line of fstab: type, or more, is missing"
            )


def _crypttab(lines: Iterable[tuple[str, str]]) -> Iterator[MountEntry]:
    for text, origin in lines:
        fields = text.split()
        if len(fields) >= 2:
            yield MountEntry(fields[1], f"/dev/mapper/{fields[0]}", "crypt", "", origin)


def read_kernel(tree: Tree) -> Iterator[Setting]:
    # An unpacked host has one where somebody put it there.
    text = tree.text("/proc/cmdline")
    if text:
        yield Setting(text.strip(), "/proc/cmdline")
    text = tree.text("/etc/kernel/cmdline")
    if text:
        yield Setting(text.strip(), "/etc/kernel/cmdline")
    for line, origin in lines_in(tree, "/etc/default/grub"):
        name, equals, value = line.partition("=")
        if equals and name.startswith("GRUB_CMDLINE_LINUX"):
            yield Setting(value.strip("'\" "), origin)
    for folder in ("/boot/loader/entries",):
        for name in tree.names(folder):
            for line, origin in lines_in(tree, f"{folder}/{name}"):
                if line.startswith("options "):
                    yield Setting(line[len("options ") :].strip(), origin)
    for path in ("/boot/grub/grub.cfg", "/boot/grub2/grub.cfg"):
        for line, origin in lines_in(tree, path):
            if re.match(r"linux(?:16|efi)?\s", line):
                yield Setting(line, origin)
    # What the initial RAM disk is told beside the kernel's command line.
    for folder in ("/etc/dracut.conf.d", "/etc/initramfs-tools/conf.d"):
        for name in tree.names(folder):
            yield from _told_to_initrd(lines_in(tree, f"{folder}/{name}"))


def _told_to_initrd(lines: Iterable[tuple[str, str]]) -> Iterator[Setting]:
    for line, origin in lines:
        key, equals, value = line.partition("=")
        if equals and key.rstrip("+") in ("kernel_cmdline", "RESUME", "ROOT"):
            prefix = "" if key.startswith("kernel") else f"{key.lower()}="
            yield Setting(prefix + value.strip("'\" "), origin)


def read_initrd_settings(tree: Tree) -> Iterator[Union[Setting, MountEntry]]:
    """Yield what initial RAM disks were told when they were made."""
    from svirtlib.backends._initrd import read_initrds

    for image, inside, text in read_initrds(tree):
        lines = lines_of(text, f"{image} ({inside})")
        if "fstab" in inside:
            yield from _fstab(tree, lines)
        elif "crypttab" in inside:
            yield from _crypttab(lines)
        elif inside.startswith("conf/"):
            yield from _told_to_initrd(lines)
        else:
            yield from (Setting(line, origin) for line, origin in lines)

"""What libselinux knows of this host: the mode, the policy, and libvirt's context files."""

from __future__ import annotations

import os
from types import ModuleType
from typing import TYPE_CHECKING, Optional

from attr import evolve

from svirtlib.context import Context
from svirtlib.errors import BackendDataError, InvalidContextError
from svirtlib.guests import Host, Mode, Unreadable

if TYPE_CHECKING:
    from svirtlib.generate import DomainContexts

__all__ = ["domain_contexts", "file_context", "host_facts", "mode_of_host"]


#: What every host with a policy has, even where SELinux is off.
_CONFIGURATION = "/etc/selinux/config"


def _bindings() -> Optional[ModuleType]:
    """Import libselinux's bindings; they are slow to load."""
    try:
        import selinux
    except ImportError:
        return None
    # PyPI's "selinux" is a stand-in without any function of use; the distribution's has all.
    return selinux if hasattr(selinux, "selabel_open") else None


def host_facts(host: Host) -> tuple[Host, list[Unreadable]]:
    """Return *host* with what libselinux says of the machine that this process runs on."""
    if not _kernel_has_selinux():
        host = evolve(host, mode=Mode.DISABLED)
        if not os.path.exists(_CONFIGURATION):
            return host, []
    selinux = _bindings()
    if selinux is None and host.mode is Mode.DISABLED:
        return host, []
    if selinux is None:
        return host, [
            Unreadable(
                "SELinux mode",
                "the libselinux bindings of the distribution are missing; install "
                "python3-selinux (Debian) or python3-libselinux (Fedora)",
            )
        ]
    unreadable: list[Unreadable] = []
    mode = _mode(selinux, unreadable)
    policy = None
    if mode is not Mode.DISABLED:
        code, name = selinux.selinux_getpolicytype()
        policy = name if code == 0 else None
    lines = _lines(selinux.selinux_virtual_image_context_path())
    return (
        evolve(
            host,
            mode=mode,
            policy=policy,
            image_context=lines[0] if lines else host.image_context,
            content_context=lines[1] if len(lines) > 1 else host.content_context,
        ),
        unreadable,
    )


def mode_of_host() -> Optional[Mode]:
    """Return what SELinux does on this machine, or None where that cannot be told."""
    if not _kernel_has_selinux():
        return Mode.DISABLED
    selinux = _bindings()
    return None if selinux is None else _mode(selinux, [])


def domain_contexts() -> DomainContexts:
    """Return what this machine's libvirt builds labels from.

    A file that does not exist is made up for by what distributions have in common.

    Raises:
        BackendDataError: a file holds something else than contexts.
    """
    from svirtlib.generate import DEFAULT_CONTEXTS

    selinux = _bindings()
    if selinux is None:
        return DEFAULT_CONTEXTS
    path = selinux.selinux_virtual_domain_context_path()
    guests = _contexts(path)
    images = _contexts(selinux.selinux_virtual_image_context_path())
    contexts = DEFAULT_CONTEXTS
    if guests:
        # Without a second line libvirt takes the first for emulated guests too.
        contexts = evolve(contexts, kvm=guests[0], tcg=guests[:2][-1], source=path)
    if images:
        contexts = evolve(contexts, image=images[0])
    if len(images) > 1:
        contexts = evolve(contexts, content=images[1])
    return contexts


def file_context(path: str, kind: int) -> Optional[str]:
    """Return the context that this machine's policy gives to a path, or None without one.

    Args:
        path: absolute path, which need not exist.
        kind: its file type, such as :data:`stat.S_IFREG`.
    """
    selinux = _bindings()
    if selinux is None:
        return None
    try:
        handle = selinux.selabel_open(selinux.SELABEL_CTX_FILE, None, 0)
    except OSError:
        return None
    if handle is None:
        # Without a policy there is no handle, and asking none ends the process.
        return None
    try:
        context: str = selinux.selabel_lookup_raw(handle, path, kind)[1]
    except OSError:
        return None
    finally:
        selinux.selabel_close(handle)
    return context


def _contexts(path: str) -> list[Context]:
    lines = _lines(path)[:2]
    try:
        return [Context.parse(line) for line in lines]
    except InvalidContextError as error:
        raise BackendDataError(f"{path}: {error}; restore it from its package") from None


def _mode(selinux: ModuleType, unreadable: list[Unreadable]) -> Optional[Mode]:
    if selinux.is_selinux_enabled() != 1:
        if _kernel_has_selinux():
            unreadable.append(
                Unreadable(
                    "SELinux mode",
                    "the kernel runs SELinux, but selinuxfs is not mounted here (a container?); "
                    "run on the host itself",
                )
            )
            return None
        return Mode.DISABLED
    try:
        return Mode.ENFORCING if selinux.security_getenforce() == 1 else Mode.PERMISSIVE
    except OSError as error:
        unreadable.append(Unreadable("SELinux mode", f"the kernel does not tell it: {error}"))
        return None


def _kernel_has_selinux() -> bool:
    """Tell whether SELinux was enabled at boot: only then its file system is registered.

    Where that is not known, libselinux has to say it.
    """
    try:
        with open("/proc/filesystems", encoding="ascii") as stream:
            return any(line.split()[-1:] == ["selinuxfs"] for line in stream)
    except OSError:
        return True


def _lines(path: str) -> list[str]:
    """Return a context file's lines as libvirt reads them: split at newlines, not trimmed."""
    try:
        with open(path, encoding="utf-8", errors="replace") as stream:
            return [line for line in stream.read(2048).split("\n") if line]
    except OSError:
        return []

"""Puts the programs that libvirt, vdsm and KubeVirt call in their places, and takes them away.

A program is one small file: what it does is in the library. It is a shell script, because a
script whose interpreter is gone ends with a failure, and a failure of libvirt's hook kills
running guests; the shell is there as long as anything is.
"""

from __future__ import annotations

import json
import os
import shlex
import stat
import sys
from collections.abc import Sequence
from typing import Optional

from attr import frozen

import svirtlib
from svirtlib.backends import _selinux, journal, output
from svirtlib.backends.hook.quick import BLOCKING, SECONDS
from svirtlib.backends.hook.state import FOLDER
from svirtlib.errors import BackendError, BackendPermissionError, SelectionError

__all__ = ["PLACES", "Plan", "apply", "plan", "plan_removal", "remove"]

#: Where each of those that call us looks.
PLACES = {
    "libvirt": "/etc/libvirt/hooks/qemu.d/50-svirt-label",
    "vdsm": "/usr/libexec/vdsm/hooks/before_vm_start/50_svirt_label",
    "kubevirt": "/usr/bin/onDefineDomain",
}

#: By this a file is known as ours.
_MARK = 'Written by "svirt-label hook install"'

_MODE = 0o755


@frozen
class Plan:
    """What is to be done to one file.

    Attributes:
        path: the file.
        change: ``create``, ``replace``, ``keep``, ``remove`` or ``none``.
        content: what it is to hold; empty where it goes.
        mode: its permissions.
        context: its SELinux context by the policy, or None where there is no policy.
        folders: folders to be made, outermost first.
        notes: what else there is to know or to do.
    """

    path: str
    change: str
    content: str = ""
    mode: int = _MODE
    context: Optional[str] = None
    folders: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def plan(
    caller: str,
    *,
    root: str = "/",
    fail: str = "open",
    seconds: float = SECONDS,
    ignore: Sequence[str] = (),
    state: str = FOLDER,
) -> Plan:
    """Return what installing the hook would do; nothing is changed.

    Args:
        caller: one of :data:`PLACES`.
        root: where the host's files are, if not at ``/``.
        fail: ``open`` or ``closed``: whether a guest starts that could not be judged.
        seconds: after which it counts as such.
        ignore: ``RULE`` or ``RULE=GUEST``: findings that stop no start.
        state: the folder where the labels of guests are noted.

    Raises:
        BackendError: another program has the file, or it cannot be read.
        SelectionError: a path is not absolute.
    """
    if not os.path.isabs(state):
        raise SelectionError(f"--state {state}: an absolute path is needed")
    path = _below(root, PLACES[caller])
    if caller == "libvirt":
        content = _libvirt_script(fail, seconds, ignore, state)
    else:
        content = _other_script(caller, fail, ignore)
    present = _present(path)
    change = "create" if present is None else "replace"
    if present == content and _mode(path) == _MODE:
        change = "keep"
    context = _selinux.file_context(PLACES[caller], stat.S_IFREG)
    folders: list[str] = []
    folder = os.path.dirname(path)
    while not os.path.isdir(folder):
        folders.insert(0, folder)
        folder = os.path.dirname(folder)
    notes = _notes(caller, path, context, new=change == "create")
    return Plan(path, change, content, _MODE, context, tuple(folders), notes)


def plan_removal(caller: str, *, root: str = "/") -> Plan:
    """Return what removing the hook would do; nothing is changed.

    Raises:
        BackendError: the file is another program's, or it cannot be read.
    """
    path = _below(root, PLACES[caller])
    return Plan(path, "none" if _present(path) is None else "remove")


def apply(plan: Plan) -> None:
    """Do what a plan for installing says.

    Raises:
        BackendError: the file cannot be written; what was there before is still there.
    """
    if plan.change == "keep":
        return
    try:
        for folder in plan.folders:
            os.mkdir(folder, 0o755)
    except OSError as error:
        raise BackendError(f"{error.filename}: cannot be made: {error.strerror}") from None
    output.write_bytes(plan.path, plan.content.encode(), mode=plan.mode, context=plan.context)
    _announce(f"wrote the hook {plan.path}", plan)


def remove(plan: Plan) -> None:
    """Do what a plan for removing says.

    Raises:
        BackendError: the file cannot be removed.
    """
    if plan.change != "remove":
        return
    try:
        os.unlink(plan.path)
    except OSError as error:
        kind = BackendPermissionError if isinstance(error, PermissionError) else BackendError
        raise kind(f"{plan.path}: cannot be removed: {error.strerror}") from None
    _announce(f"removed the hook {plan.path}", plan)


def _announce(message: str, plan: Plan) -> None:
    journal.changed(message, "hook", PATH=plan.path, CHANGE=plan.change, LABEL=plan.context or "")


def _below(root: str, path: str) -> str:
    return os.path.join(root, path.lstrip("/"))


def _present(path: str) -> Optional[str]:
    """Return what the file holds, or None where there is none.

    Raises:
        BackendError: it is not ours.
    """
    if not os.path.lexists(path):
        return None
    if not os.path.isfile(path) or os.path.islink(path):
        raise BackendError(f"{path}: not a file; move it away, or remove it")
    text = output.read_file(path, 65536).decode("utf-8", "replace")
    if _MARK not in text:
        raise BackendError(
            f"{path}: svirt-label did not write it; move it away to have the hook installed"
        )
    return text


def _mode(path: str) -> int:
    return stat.S_IMODE(os.stat(path).st_mode)


def _interpreter() -> str:
    """Return the Python to run the quick look with: the distribution's own name for it.

    A number in its name would end the hook with the next version of the distribution.
    """
    real = os.path.realpath(sys.executable)
    usual = "/usr/bin/python3"
    return usual if os.path.realpath(usual) == real else real


def _libvirt_script(fail: str, seconds: float, ignore: Sequence[str], state: str) -> str:
    packages = os.path.dirname(os.path.dirname(os.path.abspath(svirtlib.__file__)))
    judge = sys.executable if sys.prefix != sys.base_prefix else _interpreter()
    settings = {
        "fail": fail,
        "seconds": seconds,
        "judge": (judge, "-I", "-m", "svirtlib.backends.hook.judge"),
        "ignore": tuple(ignore),
        "state": state,
    }
    arguments = "".join(f"    {name}={json.dumps(value)},\n" for name, value in settings.items())
    code = (
        "import sys\n"
        f"sys.path.append({json.dumps(packages)})\n"
        "try:\n"
        "    from svirtlib.backends.hook.quick import Settings, run\n"
        "except Exception as error:\n"
        '    sys.stderr.write(f"svirt-label: the guest is not judged: {error}\\n")\n'
        f"    sys.exit({fail == 'closed'} and sys.argv[2:3] != []"
        f" and sys.argv[2] in {json.dumps(BLOCKING)})\n"
        f"run(sys.argv[1:], Settings(\n{arguments}))\n"
    )
    quick = os.path.join(packages, "svirtlib", "backends", "hook", "quick.py")
    last = "exit 0"
    if fail == "closed":
        last = f"case $2 in {'|'.join(BLOCKING)}) exit 1 ;; esac\nexit 0"
    return (
        "#!/bin/sh\n"
        f"# What libvirt calls at each phase of a guest. {_MARK}\n"
        f"# of svirt-label {svirtlib.__version__}, which also changes its settings; "
        '"svirt-label hook remove"\n'
        "# takes it away. It must never fail where libvirt would kill a guest for it.\n"
        f"python={shlex.quote(_interpreter())}\n"
        f'if [ -x "$python" ] && [ -r {shlex.quote(quick)} ]; then\n'
        f'    exec "$python" -IS -c {shlex.quote(code)} "$@"\n'
        "fi\n"
        'echo "svirt-label: the guest is not judged: svirtlib or its Python is gone" >&2\n'
        f"{last}\n"
    )


def _other_script(caller: str, fail: str, ignore: Sequence[str]) -> str:
    words = [_interpreter() if sys.prefix == sys.base_prefix else sys.executable, "-I", "-m"]
    words += ["svirtlib.cli", "hook", caller, "--fail", fail]
    for rule in ignore:
        words.append(f"--ignore={rule}")
    return (
        "#!/bin/sh\n"
        f"# What {caller} calls before it starts a guest. {_MARK}\n"
        f"# of svirt-label {svirtlib.__version__}.\n"
        f'exec {shlex.join(words)} "$@"\n'
    )


def _notes(caller: str, path: str, context: Optional[str], *, new: bool) -> tuple[str, ...]:
    notes = []
    if caller == "libvirt":
        hooks = os.path.dirname(os.path.dirname(path))
        others = [os.path.join(hooks, "qemu")] + (
            [] if not os.path.isdir(f"{hooks}/qemu.d") else _entries(f"{hooks}/qemu.d")
        )
        if new and not any(os.access(other, os.X_OK) for other in others if other != path):
            notes.append(
                "libvirt looks for hooks when it starts, and there was none: restart it "
                "(`systemctl restart virtqemud` or `systemctl restart libvirtd`; guests go on)"
            )
        if context is not None and ":virt_hook_t:" in context:
            notes.append(
                "where the policy keeps libvirt from running hooks, turn the boolean "
                "virt_hooks_unconfined on (`setsebool -P virt_hooks_unconfined on`)"
            )
    if context is None:
        notes.append("no SELinux policy tells which label the file is to have; it gets none")
    return tuple(notes)


def _entries(folder: str) -> list[str]:
    return [os.path.join(folder, name) for name in sorted(os.listdir(folder))]

"""Open what an inventory is taken of: libvirt with this machine, or documents."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Optional, Union

from svirtlib.errors import SelectionError
from svirtlib.guests import Inventory, Mode
from svirtlib.inventory import take_inventory
from svirtlib.ports import Files, Processes, Progress

if TYPE_CHECKING:
    from svirtlib.backends.policyfacts import Opening
    from svirtlib.generate import DomainContexts

__all__ = [
    "judged_by",
    "read_contexts",
    "read_documents",
    "read_host",
    "read_pool",
    "read_process_labels",
    "read_sosreport",
]


def read_documents(
    paths: Sequence[str],
    *,
    files: bool = False,
    processes: bool = False,
    policy: Union[str, bool] = False,
    devices: bool = False,
    progress: Optional[Progress] = None,
) -> Inventory:
    """Take the inventory of files and folders of ``virsh dumpxml`` output.

    Args:
        paths: files, folders, or ``-`` for standard input.
        files: look at the images on this machine too; for documents that were made here.
        processes: look at the processes of this machine too.
        policy: path of the policy to ask; True for this machine's, if *files* or *processes* say
            that the documents are from here.
        devices: read consoles and other devices too.
        progress: told of each document that was read.

    Raises:
        DomainXMLError: no document is one of a guest.
        BackendError: no document could be opened.
    """
    from svirtlib.backends._documents import Documents

    inventory = take_inventory(
        Documents(paths, devices=devices),
        processes=_processes(labelled=True, system=True) if processes else None,
        files=_files(enforced=False) if files else None,
        progress=progress,
    )
    return _judged(_stored(inventory), _opening(policy, here=files or processes))


def read_sosreport(path: str, *, policy: Union[str, bool] = False) -> Inventory:
    """Take the inventory of a host from its unpacked sosreport.

    Args:
        path: the folder that it was unpacked to.
        policy: path of the policy to ask; True for the one in the report, if it holds one.

    Raises:
        SelectionError: the folder is no sosreport.
        DomainXMLError: it holds no guest.
        BackendError: it cannot be opened.
    """
    from svirtlib.backends._sosreport import SosReport
    from svirtlib.backends._sosstorage import with_storage

    report = SosReport(path)
    try:
        inventory = take_inventory(
            report,
            processes=report if report.has_processes else None,
            files=report if report.has_files else None,
        )
        inventory = with_storage(inventory, report.tree, report.policy_name())
        if policy is True:
            policy = report.policy() or False
    finally:
        report.close()
    return _judged(inventory, _opening(policy, here=False))


def read_host(
    uri: Optional[str] = None,
    *,
    files: Optional[bool] = None,
    processes: Optional[bool] = None,
    policy: Union[str, bool] = False,
    devices: bool = False,
    timeout: Optional[float] = None,
    progress: Optional[Progress] = None,
) -> Inventory:
    """Take the inventory of a libvirt connection and, where it is this machine, of the host.

    Args:
        uri: what to connect to; None for libvirt's own default.
        files: look at the images; None to do so for a local connection.
        processes: look at the processes; None to do so for a local connection.
        policy: path of the policy to ask; True for this machine's, if its libvirt is asked.
        devices: read consoles and other devices too.
        timeout: seconds without any answer after which libvirt counts as hung.
        progress: told of each guest that was read.

    Raises:
        SelectionError: files or processes were asked for of a host that is not this machine.
        BackendError: libvirt cannot be asked.
    """
    from svirtlib.backends import _libvirt, _selinux

    source = _libvirt.LibvirtGuests(
        uri,
        timeout=_libvirt.DEFAULT_TIMEOUT if timeout is None else timeout,
        devices=devices,
    )
    try:
        if (files or processes) and not source.is_local:
            raise SelectionError(
                f"{source.uri} is not this machine: its files and processes cannot be looked at "
                f"from here; run svirt-label there, or leave out --files and --processes"
            )
        look_at_files = source.is_local if files is None else files
        look_at_processes = source.is_local if processes is None else processes
        opening = _opening(policy, here=source.is_local)
        # Where the mode is not known, the labels of processes and files still may be.
        labelled = source.is_local and _selinux.mode_of_host() is not Mode.DISABLED
        inventory = take_inventory(
            source,
            processes=_processes(labelled=labelled, system=source.is_system)
            if look_at_processes
            else None,
            files=_files(enforced=labelled) if look_at_files else None,
            progress=progress,
        )
        return _judged(_stored(inventory), opening)
    finally:
        source.close()


def judged_by(inventory: Inventory, path: Optional[str]) -> Inventory:
    """Return an inventory with what a policy says of its contexts; None for this machine's.

    Raises:
        PolicyError: *path* is no policy.
        BackendError: *path* cannot be read, or there is no libsepol.
    """
    from svirtlib.backends.policyfacts import Opening, with_policy

    return with_policy(inventory, Opening(path))


def _stored(inventory: Inventory) -> Inventory:
    """Add what this host says of the storage of images, if they were looked at here."""
    if not inventory.files:
        return inventory
    from svirtlib.backends.storagefacts import with_storage

    return with_storage(inventory)


def _opening(policy: Union[str, bool], *, here: bool) -> Optional[Opening]:
    """Open the policy that is meant: a named one, or this machine's for its own guests alone."""
    if not (isinstance(policy, str) or (policy and here)):
        return None
    from svirtlib.backends.policyfacts import Opening

    return Opening(policy if isinstance(policy, str) else None)


def _judged(inventory: Inventory, opening: Optional[Opening]) -> Inventory:
    if opening is None:
        return inventory
    from svirtlib.backends.policyfacts import with_policy

    return with_policy(inventory, opening)


def read_pool(name: str, uri: Optional[str] = None) -> list[str]:
    """Return the paths of a storage pool: its folder, or its volumes where they are devices.

    Raises:
        SelectionError: libvirt has no such pool, or one that has no path on this host.
        BackendError: libvirt cannot be asked.
    """
    from svirtlib.backends import _libvirt

    source = _libvirt.LibvirtGuests(uri)
    try:
        return source.pool_paths(name)
    finally:
        source.close()


def read_contexts() -> DomainContexts:
    """Return what libvirt builds the labels of guests from on this machine.

    Raises:
        BackendDataError: this machine's files are damaged.
    """
    from svirtlib.backends import _selinux

    return _selinux.domain_contexts()


def read_process_labels() -> list[tuple[str, str]]:
    """Return the contexts with categories of all processes here, each with a name for it.

    Container engines draw their levels from the space that guests have theirs from.
    """
    from svirtlib.backends._procfs import labelled_processes

    return list(labelled_processes())


def _files(*, enforced: bool) -> Files:
    from svirtlib.backends._files import FileSystem

    return FileSystem(enforced=enforced)


def _processes(*, labelled: bool, system: bool) -> Processes:
    from svirtlib.backends._procfs import PID_FILES, ProcessTable

    return ProcessTable(labelled=labelled, pid_files=PID_FILES if system else None)

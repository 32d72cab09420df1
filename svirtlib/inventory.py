"""Take the inventory of a host: the only place that puts the readings together."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Optional, Union

from attr import evolve

from svirtlib._collection import no_collection
from svirtlib.guests import (
    FileLabel,
    Guest,
    Host,
    Image,
    ImageKind,
    Inventory,
    Process,
    Unreadable,
)
from svirtlib.ports import Files, Guests, Processes, Progress
from svirtlib.seclabel import Seclabel

__all__ = ["guest_key", "take_inventory"]


def guest_key(guest: Guest) -> str:
    """Return a text that tells a guest from every other: its UUID and name."""
    return f"{guest.uuid or ''} {guest.name}"


def take_inventory(
    source: Guests,
    *,
    processes: Optional[Processes] = None,
    files: Optional[Files] = None,
    progress: Optional[Progress] = None,
) -> Inventory:
    """Read all guests, and what the host says of their processes and images.

    Args:
        source: where the guests come from.
        processes: the host's processes, or None to leave them alone.
        files: the host's files, or None to leave them alone.
        progress: told of each guest that was read.

    Raises:
        BackendError: nothing could be read at all.
    """
    with no_collection():
        return _take_inventory(source, processes, files, progress or _no_progress)


def _take_inventory(
    source: Guests, processes: Optional[Processes], files: Optional[Files], progress: Progress
) -> Inventory:
    unreadable: list[Unreadable] = []
    guests: list[Guest] = []
    for entry in source.guests(progress):
        if isinstance(entry, Unreadable):
            unreadable.append(entry)
        else:
            guests.append(_with_volumes(entry, source, unreadable))
    host, host_unreadable = source.host()
    unreadable.extend(host_unreadable)
    guests = _distinct(guests, unreadable)
    if processes is not None:
        guests = _with_processes(guests, processes, unreadable)
    labels: dict[str, FileLabel] = {}
    if files is not None:
        guests = [_with_chains(guest, files, unreadable) for guest in guests]
        labels = _file_labels(guests, files, unreadable)
    return Inventory(
        host=host or Host(),
        guests=tuple(sorted(guests, key=lambda guest: (guest.name, guest.uuid or ""))),
        files=tuple(labels[path] for path in sorted(labels)),
        unreadable=tuple(unreadable),
        notes=tuple(source.notes()),
        host_known=host is not None,
        files_known=files is not None,
        processes_known=processes is not None,
    )


def _no_progress(done: int, total: int) -> None:
    """Take no note."""


def _with_volumes(guest: Guest, source: Guests, unreadable: list[Unreadable]) -> Guest:
    """Put paths to the images that are storage volumes."""
    if not any(image.path is None and image.kind is ImageKind.VOLUME for image in guest.images):
        return guest
    images = []
    for image in guest.images:
        if image.kind is ImageKind.VOLUME and image.path is None:
            path = source.volume_path(image, in_use=guest.running)
            if isinstance(path, Unreadable):
                unreadable.append(evolve(path, guest=guest.name))
            elif path is not None:
                image = evolve(image, path=path, name=path)
        images.append(image)
    return evolve(guest, images=tuple(images))


def _distinct(guests: Iterable[Guest], unreadable: list[Unreadable]) -> list[Guest]:
    """Keep one document of each guest; the one that shows it running, if there is one.

    A folder may hold both forms of a guest, live and inactive. Compared with each other they
    would look like two guests with one label.
    """
    distinct: dict[str, Guest] = {}
    for guest in guests:
        other = distinct.setdefault(guest_key(guest), guest)
        if other is guest:
            continue
        if guest.running and other.running and _labels(guest) != _labels(other):
            unreadable.append(
                Unreadable(
                    f"guest {guest.name}",
                    f"two documents show it running, with different labels: {other.source} and "
                    f"{guest.source}; the first was judged",
                    guest.name,
                )
            )
        elif guest.running and not other.running:
            distinct[guest_key(guest)] = guest
    return list(distinct.values())


def _labels(guest: Guest) -> list[Seclabel]:
    """Return a guest's seclabels without their lines, which the rest of the XML may move."""
    return [evolve(seclabel, line=None) for seclabel in guest.seclabels]


def _with_processes(
    guests: list[Guest], processes: Processes, unreadable: list[Unreadable]
) -> list[Guest]:
    found, lost = processes.of_guests(guests)
    judged = []
    for guest in guests:
        process: Union[Process, Unreadable, None] = found.get(guest_key(guest))
        if isinstance(process, Unreadable):
            unreadable.append(process)
        elif process is not None:
            guest = evolve(guest, process=process)
        judged.append(guest)
    return [*judged, *lost]


def _with_chains(guest: Guest, files: Files, unreadable: list[Unreadable]) -> Guest:
    """Add the backing files that the XML of a guest that does not run leaves out."""
    images: list[Image] = []
    for image in guest.images:
        images.append(image)
        if image.chain_known or image.path is None or guest.running:
            continue
        for below in files.below(image):
            if isinstance(below, Unreadable):
                unreadable.append(evolve(below, guest=guest.name))
            else:
                images.append(below)
    return evolve(guest, images=tuple(images)) if len(images) > len(guest.images) else guest


def _file_labels(
    guests: list[Guest], files: Files, unreadable: list[Unreadable]
) -> dict[str, FileLabel]:
    labels: dict[str, FileLabel] = {}
    missed: dict[str, Optional[Unreadable]] = {}
    # Guests that run come first: it is their view of a device that counts.
    for guest in sorted(guests, key=lambda guest: not guest.running):
        pid = None if guest.process is None else guest.process.pid
        for path in dict.fromkeys(image.path for image in guest.images):
            if path is None or path in labels:
                continue
            if path not in missed:
                label = files.look(path, pid)
                if isinstance(label, FileLabel):
                    labels[path] = label
                    continue
                missed[path] = label
            # Each guest that uses it stays unjudged for it.
            reason = missed[path]
            if reason is not None:
                unreadable.append(evolve(reason, guest=guest.name))
            elif guest.running:
                unreadable.append(
                    Unreadable(
                        path,
                        f"{guest.name} runs with this image, and there is no such file: it was "
                        f"removed or replaced, or lies in another mount namespace",
                        guest.name,
                    )
                )
    return labels

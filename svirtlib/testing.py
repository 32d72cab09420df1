"""Made-up hosts, for the tests of programs that build on svirtlib.

The fakes fulfil the protocols of :mod:`svirtlib.ports`, so that
:func:`svirtlib.inventory.take_inventory` reads them as it reads a real host:

>>> from svirtlib.inventory import take_inventory
>>> inventory = take_inventory(FakeGuests([running_guest("web", "s0:c1,c2")]))
>>> inventory.guests[0].name
'web'
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Optional, Union

from svirtlib.guests import (
    FileLabel,
    Guest,
    Host,
    Image,
    ImageKind,
    ImageMode,
    ImageUse,
    Mode,
    Process,
    Unreadable,
)
from svirtlib.inventory import guest_key
from svirtlib.mls import Level
from svirtlib.ports import Progress
from svirtlib.seclabel import SELINUX, Seclabel, SeclabelType

__all__ = ["FakeFiles", "FakeGuests", "FakeProcesses", "defined_guest", "running_guest"]


def running_guest(
    name: str,
    level: str,
    *,
    type: SeclabelType = SeclabelType.DYNAMIC,
    images: Iterable[Union[str, Image]] = (),
) -> Guest:
    """Return a guest that runs as libvirt labels it.

    Args:
        name: its name, of which its UUID is made.
        level: the level of its process and its images, such as ``s0:c1,c2``.
        type: how the label came about.
        images: paths of its own disks, or images of another kind.

    Raises:
        InvalidLevelError: *level* is none.
    """
    Level.parse(level)
    seclabel = Seclabel(
        type=type,
        model=SELINUX,
        label=f"system_u:system_r:svirt_t:{level}",
        imagelabel=f"system_u:object_r:svirt_image_t:{level}",
    )
    return _guest(name, True, seclabel, images)


def defined_guest(
    name: str, level: Optional[str] = None, *, images: Iterable[Union[str, Image]] = ()
) -> Guest:
    """Return a guest that does not run.

    Args:
        name: its name, of which its UUID is made.
        level: the level of its static label, or None for a dynamic one.
        images: paths of its own disks, or images of another kind.

    Raises:
        InvalidLevelError: *level* is none.
    """
    if level is None:
        return _guest(name, False, None, images)
    Level.parse(level)
    label = f"system_u:system_r:svirt_t:{level}"
    seclabel = Seclabel(type=SeclabelType.STATIC, model=SELINUX, label=label)
    return _guest(name, False, seclabel, images)


def _guest(
    name: str,
    running: bool,
    seclabel: Optional[Seclabel],
    images: Iterable[Union[str, Image]],
) -> Guest:
    return Guest(
        name=name,
        uuid=str(uuid.uuid5(uuid.NAMESPACE_DNS, name)),
        running=running,
        virt_type="kvm",
        source="testing",
        seclabels=() if seclabel is None else (seclabel,),
        images=tuple(
            image
            if isinstance(image, Image)
            else Image(
                use=ImageUse.DISK,
                kind=ImageKind.FILE,
                mode=ImageMode.PRIVATE,
                path=image,
                name=image,
                target=f"vd{'abcdefghijklmnopqrstuvwxyz'[place % 26]}",
            )
            for place, image in enumerate(images)
        ),
    )


class FakeGuests:
    """A libvirt that has these guests.

    Args:
        guests: the guests, and what could not be read.
        host: the host that they run on; None for documents, which have none.
    """

    def __init__(
        self, guests: Iterable[Union[Guest, Unreadable]], host: Optional[Host] = None
    ) -> None:
        self._guests = list(guests)
        self._host = host

    @classmethod
    def enforcing(cls, guests: Iterable[Union[Guest, Unreadable]]) -> FakeGuests:
        """Return one on a host whose SELinux is enforcing."""
        host = Host(name="host", mode=Mode.ENFORCING, policy="targeted", secmodels=(SELINUX, "dac"))
        return cls(guests, host)

    def host(self) -> tuple[Optional[Host], Sequence[Unreadable]]:
        """Return the host."""
        return self._host, ()

    def guests(self, progress: Progress) -> Iterator[Union[Guest, Unreadable]]:
        """Yield the guests."""
        for done, guest in enumerate(self._guests, 1):
            yield guest
            progress(done, len(self._guests))

    def notes(self) -> Sequence[str]:
        """Return nothing."""
        return ()

    def volume_path(self, image: Image, *, in_use: bool) -> Union[str, Unreadable, None]:
        """Return None: there are no pools."""
        del image, in_use
        return None


class FakeProcesses:
    """A ``/proc`` in which the guests' processes have these contexts.

    Args:
        contexts: by the guests' names; for a guest that is missing, no process is found.
    """

    def __init__(self, contexts: Mapping[str, str]) -> None:
        self._contexts = dict(contexts)

    def of_guests(
        self, guests: Sequence[Guest]
    ) -> tuple[dict[str, Union[Process, Unreadable]], Sequence[Guest]]:
        """Return the process of each running guest, and no others."""
        found: dict[str, Union[Process, Unreadable]] = {}
        for pid, guest in enumerate(guests, 1000):
            if not guest.running:
                continue
            context = self._contexts.get(guest.name)
            if context is None:
                gap = Unreadable(f"process of guest {guest.name}", "not made up", guest.name)
                found[guest_key(guest)] = gap
            else:
                found[guest_key(guest)] = Process(pid, context, f"/proc/{pid}/attr/current")
        return found, ()


class FakeFiles:
    """Files with these contexts.

    Args:
        contexts: by path; None for a file without a label. Other paths do not exist.
    """

    def __init__(self, contexts: Mapping[str, Optional[str]]) -> None:
        self._contexts = dict(contexts)

    def look(self, path: str, pid: Optional[int]) -> Union[FileLabel, Unreadable, None]:
        """Return a file's label."""
        del pid
        if path not in self._contexts:
            return None
        return FileLabel(path=path, identity=f"file {path}", context=self._contexts[path])

    def below(self, image: Image) -> Iterator[Union[Image, Unreadable]]:
        """Yield nothing: no image has another below it."""
        del image
        yield from ()

"""What an inventory needs of the system, as protocols; ``svirtlib.backends`` fulfils them.

Each method either answers or returns an :class:`~svirtlib.guests.Unreadable` that says why it
cannot; a :class:`~svirtlib.errors.BackendError` means that nothing at all can be learnt.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Optional, Protocol, Union

from svirtlib.guests import FileLabel, Guest, Host, Image, Process, Unreadable

__all__ = ["Files", "Guests", "Processes", "Progress"]


class Progress(Protocol):
    """Told how far a long reading has come."""

    def __call__(self, done: int, total: int) -> None:
        """Take note that *done* of *total* guests were read."""


class Guests(Protocol):
    """Where guests come from: libvirt, or a folder of documents."""

    def host(self) -> tuple[Optional[Host], Sequence[Unreadable]]:
        """Return the host that the guests run on, or None where there is none to look at.

        Asked after the guests: of a host that is not this machine, they tell most.
        """

    def guests(self, progress: Progress) -> Iterator[Union[Guest, Unreadable]]:
        """Yield each guest, and each that could not be read."""

    def notes(self) -> Sequence[str]:
        """Return what happened on the way that makes nothing unknown."""

    def volume_path(self, image: Image, *, in_use: bool) -> Union[str, Unreadable, None]:
        """Return the path of an image that is a storage volume, or None if it has none.

        Args:
            image: the image.
            in_use: a guest runs with it; where none does, it may well not exist.
        """


class Processes(Protocol):
    """The processes of the host that the guests run on."""

    def of_guests(
        self, guests: Sequence[Guest]
    ) -> tuple[dict[str, Union[Process, Unreadable]], Sequence[Guest]]:
        """Return the process of each running guest by :func:`guest_key`, and lost guests.

        A lost guest is a QEMU process of libvirt's that none of *guests* accounts for.
        """


class Files(Protocol):
    """The files and devices of the host that the guests run on."""

    def look(self, path: str, pid: Optional[int]) -> Union[FileLabel, Unreadable, None]:
        """Return what the host says of a path, or None where there is no such file.

        Args:
            path: absolute path as the guest's XML names it.
            pid: the guest's process, whose own view of ``/dev`` counts; None if it has none.
        """

    def below(self, image: Image) -> Iterator[Union[Image, Unreadable]]:
        """Yield the backing chain below an image whose XML does not list it, top down."""

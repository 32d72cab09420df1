"""A socket in journald's place: what is sent to it, as fields."""

from __future__ import annotations

import socket
import struct
from pathlib import Path

__all__ = ["Journald"]


class Journald:
    """Listens as journald does.

    Attributes:
        path: where.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / "socket"
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(self.path))
        self._socket.setblocking(False)

    def close(self) -> None:
        """Stop listening."""
        self._socket.close()

    def told(self) -> list[dict[str, list[bytes]]]:
        """Return what was told since the last time, each message's fields with their values."""
        messages = []
        while True:
            try:
                data = self._socket.recv(1 << 20)
            except BlockingIOError:
                return messages
            messages.append(_fields(data))


def _fields(data: bytes) -> dict[str, list[bytes]]:
    """Read a message in journald's protocol, of which we use the form with lengths alone."""
    fields: dict[str, list[bytes]] = {}
    while data:
        name, _, data = data.partition(b"\n")
        (length,) = struct.unpack("<Q", data[:8])
        fields.setdefault(name.decode("ascii"), []).append(data[8 : 8 + length])
        assert data[8 + length : 9 + length] == b"\n"
        data = data[9 + length :]
    return fields

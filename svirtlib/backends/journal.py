"""Messages to the system's journal, with fields; to syslog where there is no journal.

Whoever reads a journal can then ask for what svirt-label did to one guest or one file:
``journalctl SVIRT_GUEST=web01``. The fields are told in docs/journal.md.

It imports nothing of svirtlib, and of the standard library only when there is something to
say: libvirt's hook loads it at each start of a guest.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Optional, Union

__all__ = [
    "CHANGED",
    "ERR",
    "INFO",
    "NOTE",
    "NOTICE",
    "SOCKET",
    "STOPPED",
    "UNJUDGED",
    "WARNING",
    "changed",
    "tell",
]

#: Where journald takes messages in its own protocol.
SOCKET = "/run/systemd/journal/socket"

#: Where a syslog daemon takes messages.
LOG = "/dev/log"

#: Priorities, as syslog numbers them.
ERR, WARNING, NOTICE, INFO = 3, 4, 5, 6

#: Kinds of messages (``MESSAGE_ID``); a promise, as programs wait for them.
#: Something was changed.
CHANGED = "b58a8d72ef7f407bb6d26fcda31e60fe"
#: The hook kept a guest from starting.
STOPPED = "f7b1898de7ba49eebd0414badc9b6e3f"
#: The hook could not judge a guest.
UNJUDGED = "01559eefcfaf4f3893cd85800b7dc75b"
#: The hook has something to say of a guest that stops nothing.
NOTE = "19e638aa93d443808b9c882a805c1a79"

#: Longer texts are cut: the kernel takes no message of any length in one piece.
_LONGEST = 32768

#: As many values of one field are told, each as long as a path may be.
_MOST, _LONGEST_OF_MANY = 32, 4096


def changed(
    message: str,
    verb: str,
    *,
    done: bool = True,
    priority: int = NOTICE,
    **fields: "Union[str, int, Sequence[str]]",
) -> bool:
    """Tell of a change that was made.

    Args:
        message: what was changed, for people.
        verb: the verb that changed it.
        done: False where it stopped part way.
        priority: of one that was done; what stopped part way is a warning.
        fields: as for :func:`tell`.

    Returns:
        Whether anybody took it.
    """
    return tell(
        message,
        priority if done else WARNING,
        kind=CHANGED,
        socket=None,
        VERB=verb,
        OUTCOME="done" if done else "partial",
        **fields,
    )


def tell(
    message: str,
    priority: int = NOTICE,
    *,
    kind: str = NOTE,
    socket: "Optional[str]" = None,
    **fields: "Union[str, int, Sequence[str]]",
) -> bool:
    """Send a message.

    Args:
        message: the text, for people.
        priority: :data:`ERR`, :data:`WARNING`, :data:`NOTICE` or :data:`INFO`.
        kind: what sort of message it is, for programs.
        socket: where journald listens; None for :data:`SOCKET`.
        fields: more fields; names in capitals, with the prefix ``SVIRT_`` put before them. Of
            several values the first 32 are told; an empty one is left out.

    Returns:
        Whether anybody took it. Nobody is no error: a host without a journal has none.
    """
    parts = [
        _field("MESSAGE", message, _LONGEST),
        _field("MESSAGE_ID", kind, _LONGEST),
        _field("PRIORITY", str(priority), _LONGEST),
        _field("SYSLOG_IDENTIFIER", "svirt-label", _LONGEST),
    ]
    for name, value in fields.items():
        if isinstance(value, (str, int)):
            values, longest = [str(value)], _LONGEST
        else:
            values, longest = list(value[:_MOST]), _LONGEST_OF_MANY
        parts += [_field(f"SVIRT_{name}", text, longest) for text in values if text]
    import socket as sockets

    try:
        with sockets.socket(sockets.AF_UNIX, sockets.SOCK_DGRAM) as sender:
            sender.settimeout(1)
            sender.connect(SOCKET if socket is None else socket)
            sender.send(b"".join(parts))
        return True
    except OSError:
        return _syslog(message, priority)


def _field(name: str, text: str, longest: int) -> bytes:
    """Return a field as journald reads it: with its length, so that any text can stand there."""
    try:
        # Names of files are bytes, and stand there as they are.
        data = text.encode("utf-8", "surrogateescape")[:longest]
    except UnicodeError:
        data = text.encode("utf-8", "backslashreplace")[:longest]
    return name.encode() + b"\n" + len(data).to_bytes(8, "little") + data + b"\n"


def _syslog(message: str, priority: int) -> bool:
    import posix
    import syslog

    try:
        posix.stat(LOG)
    except OSError:
        return False
    syslog.openlog("svirt-label", syslog.LOG_PID, syslog.LOG_DAEMON)
    # One line, lest a guest's name forge another.
    syslog.syslog(priority, ascii(message[:_LONGEST])[1:-1].replace("\\'", "'"))
    syslog.closelog()
    return True

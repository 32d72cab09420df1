"""Messages to the system's journal, with fields; to syslog where there is no journal.

Whoever reads a journal can then ask for what svirt-label did to one guest or one file:
``journalctl SVIRT_GUEST=web01``. The fields are told in docs/hook.md.

It imports nothing of svirtlib, and of the standard library only when there is something to
say: libvirt's hook loads it at each start of a guest.
"""

__all__ = ["ERR", "NOTICE", "SOCKET", "WARNING", "tell"]

#: Where journald takes messages in its own protocol.
SOCKET = "/run/systemd/journal/socket"

#: Priorities, as syslog numbers them.
ERR, WARNING, NOTICE = 3, 4, 5

#: Larger ones the kernel does not take in one piece.
_LONGEST = 32768


def tell(message: str, priority: int = NOTICE, *, socket: str = SOCKET, **fields: str) -> bool:
    """Send a message.

    Args:
        message: the text, for people.
        priority: :data:`ERR`, :data:`WARNING` or :data:`NOTICE`.
        socket: where journald listens.
        fields: more fields; names in capitals, with the prefix ``SVIRT_`` put before them.

    Returns:
        Whether anybody took it. Nobody is no error: a host without a journal has none.
    """
    texts = {
        "MESSAGE": message,
        "PRIORITY": str(priority),
        "SYSLOG_IDENTIFIER": "svirt-label",
        **{f"SVIRT_{name}": text for name, text in fields.items()},
    }
    import socket as sockets

    try:
        with sockets.socket(sockets.AF_UNIX, sockets.SOCK_DGRAM) as sender:
            sender.settimeout(1)
            sender.connect(socket)
            sender.send(b"".join(_field(name, text) for name, text in texts.items()))
        return True
    except OSError:
        return _syslog(message, priority)


def _field(name: str, text: str) -> bytes:
    """Return a field as journald reads it: with its length, so that any text can stand there."""
    data = text[:_LONGEST].encode("utf-8", "backslashreplace")
    return name.encode() + b"\n" + len(data).to_bytes(8, "little") + data + b"\n"


def _syslog(message: str, priority: int) -> bool:
    import posix
    import syslog

    try:
        posix.stat("/dev/log")
    except OSError:
        return False
    syslog.openlog("svirt-label", syslog.LOG_PID, syslog.LOG_DAEMON)
    # One line, lest a guest's name forge another.
    syslog.syslog(priority, ascii(message[:_LONGEST])[1:-1].replace("\\'", "'"))
    syslog.closelog()
    return True

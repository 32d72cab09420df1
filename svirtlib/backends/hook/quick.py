"""libvirt's qemu hook: the quick look that each start of a guest waits for.

It reads the domain XML on standard input and says nothing if all is well, which it can tell
of what libvirt itself generates and of static labels in the kernel's spelling. Everything
else it leaves to :mod:`svirtlib.backends.hook.judge`.

The work is done in a child process, with a limit on its time; this process only waits, so
that neither a fault nor storage that hangs can hold libvirt. What it must keep to:

* A status other than 0 stops a start (``prepare``, ``start``, ``started``). In every other
  phase it would kill a running guest or lose data: there it is always 0.
* Nothing on standard output: in some phases libvirt takes it for the guest's new XML.
* No call to libvirt, which waits for this process, with the guest locked.

It imports nothing but built-in modules before something is wrong; tests hold it to a list.
"""

import posix
import select
import sys
import time

from svirtlib.backends import journal
from svirtlib.backends.hook.state import FOLDER, State

# Not typing's, whose import takes longer than all that the hook does.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Optional

__all__ = [
    "BLOCKING",
    "PHASES",
    "SECONDS",
    "Look",
    "Settings",
    "categories",
    "look_at",
    "main",
    "run",
]

#: The phases in which a status other than 0 keeps a guest from running; nothing worse.
BLOCKING = ("prepare", "start", "started")
#: All phases that are known; libvirt 9 has these.
PHASES = (
    *BLOCKING,
    "stopped",
    "release",
    "migrate",
    "restore",
    "reconnect",
    "attach",
)

#: Seconds after which the hook gives up.
SECONDS = 10.0

#: The largest document that is read: that of the library.
_MAX_BYTES = 16 * 1024 * 1024
#: What the child's status says.
_WELL, _OBJECTION = 0, 1
_FAILED = 2


class Settings:
    """What the installer chose.

    Attributes:
        fail: ``open`` or ``closed``: whether a guest starts that could not be judged.
        seconds: after which it counts as such.
        judge: the command that judges what the quick look does not.
        ignore: ``RULE`` or ``RULE=GUEST``: findings that stop no start.
        state: the folder where labels are noted.
        proc: the kernel's process file system.
        journal: journald's socket.
    """

    def __init__(
        self,
        fail: str = "open",
        seconds: float = SECONDS,
        judge: "Sequence[str]" = (),
        ignore: "Sequence[str]" = (),
        state: str = FOLDER,
        proc: str = "/proc",
        journal: str = journal.SOCKET,
    ) -> None:
        self.fail = fail
        self.seconds = seconds
        self.judge = tuple(judge) or (
            sys.executable,
            "-I",
            "-m",
            "svirtlib.backends.hook.judge",
        )
        self.ignore = tuple(ignore)
        self.state = state
        self.proc = proc
        self.journal = journal


def main(arguments: "Sequence[str]", settings: "Optional[Settings]" = None) -> int:
    """Run the hook with the arguments that libvirt gives, and return its exit status.

    Args:
        arguments: guest, phase, ``begin`` or ``end``, and what newer versions add.
        settings: what the installer chose; None for the defaults.
    """
    settings = settings or Settings()
    guest = arguments[0] if arguments else ""
    phase = arguments[1] if len(arguments) > 1 else ""
    try:
        code, said = _supervise(arguments, settings)
    except Exception as error:  # noqa: BLE001 - a fault of ours must not decide over a guest
        code, said = _FAILED, f"{type(error).__name__}: {error}"
    fields = {"GUEST": guest, "PHASE": phase}
    if code == _WELL:
        if said:
            _tell(said, journal.WARNING, journal.NOTE, settings, VERDICT="pass", **fields)
        return 0
    stops = phase in BLOCKING
    if code == _OBJECTION:
        # The judge has told the journal, with all that it knows.
        if stops:
            _say(said)
        return int(stops)
    fails = stops and settings.fail == "closed"
    said = said.strip() or "no reason was given"
    if fails:
        outcome = "the guest does not start, as the hook was installed with --fail closed"
    elif stops:
        outcome = "the guest starts unjudged; look with 'svirt-label check'"
    else:
        outcome = "this phase goes on in any case"
    text = f"guest {guest!r}, {phase or 'no phase'}: not judged: {said}; {outcome}"
    verdict = "closed" if fails else "open"
    _tell(text, journal.ERR, journal.UNJUDGED, settings, VERDICT=verdict, **fields)
    _say(f"svirt-label: {text}\n")
    return int(fails)


def run(arguments: "Sequence[str]", settings: Settings) -> None:
    """Run the hook and end this process, without what Python tidies up at its end."""
    posix._exit(main(arguments, settings))


def _say(text: str) -> None:
    """Write to standard error, which libvirt shows where a start fails."""
    try:
        posix.write(2, text.encode("utf-8", "backslashreplace"))
    except OSError:
        # It was closed; the journal still tells.
        return


def _tell(message: str, priority: int, kind: str, settings: Settings, **fields: str) -> None:
    journal.tell(message, priority, kind=kind, socket=settings.journal, VERB="hook", **fields)


def _supervise(arguments: "Sequence[str]", settings: Settings) -> "tuple[int, str]":
    """Do the work in a child, and return its status with what it said."""
    deadline = time.monotonic() + settings.seconds
    reading, writing = posix.pipe()
    child = posix.fork()
    if child == 0:
        code = _FAILED
        try:
            # Neither libvirt's pipes nor ours may stay open in a child that hangs.
            nothing = posix.open("/dev/null", posix.O_RDWR)
            posix.dup2(nothing, 1)
            posix.dup2(writing, 2)
            posix.close(reading)
            code = _work(arguments, settings)
        except BaseException as error:  # noqa: BLE001 - the child must end here, whatever happens
            _say(_reason(error))
        finally:
            posix._exit(code)
    posix.close(writing)
    heard = bytearray()
    poll = select.poll()
    poll.register(reading, select.POLLIN)
    while True:
        left = deadline - time.monotonic()
        if left <= 0 or not poll.poll(left * 1000):
            break
        data = posix.read(reading, 65536)
        if not data:
            break
        heard += data
    said = bytes(heard).decode("utf-8", "replace")
    status = _reap(child, deadline)
    if status is None:
        return _FAILED, f"no verdict within {settings.seconds:g} seconds. {said}"
    if posix.WIFEXITED(status):
        return posix.WEXITSTATUS(status), said
    return _FAILED, f"ended by signal {posix.WTERMSIG(status)}. {said}"


def _reap(child: int, deadline: float) -> "Optional[int]":
    """Return how the child ended, or None after having killed it."""
    while True:
        pid, status = posix.waitpid(child, posix.WNOHANG)
        if pid:
            return status
        if time.monotonic() >= deadline:
            posix.kill(child, 9)
            # What hangs in the kernel does not even die; then it is left behind.
            time.sleep(0.01)
            posix.waitpid(child, posix.WNOHANG)
            return None
        time.sleep(0.0002)


def _reason(error: BaseException) -> str:
    name = type(error).__name__
    return f"{name}: {error}" if isinstance(error, (OSError, TypeError)) else str(error) or name


def _work(arguments: "Sequence[str]", settings: Settings) -> int:
    """Look at one phase; return a status of the child, or become the judge."""
    data = _read_all()
    if len(arguments) < 3:
        raise ValueError(
            f"called with {len(arguments)} arguments; libvirt gives a guest, a phase, 'begin' or "
            "'end', and '-'"
        )
    phase = arguments[1]
    if phase not in PHASES:
        _say(f"guest {arguments[0]!r}: phase {phase!r} is not known to this version; nothing done")
        return _WELL
    if phase in ("stopped", "migrate", "restore", "attach"):
        return _WELL
    look = look_at(data)
    state = State(settings.state)
    if phase == "release":
        with state:
            state.forget(look.uuid)
        _complain(state)
        return _WELL
    with state:
        well = _is_well(phase, look, state, settings)
        if well and phase != "prepare" and look.label is not None:
            state.note(look.uuid, look.label, look.name)
    _complain(state)
    if well:
        return _WELL
    _become_judge(arguments, data, settings)
    return _FAILED


def _complain(state: State) -> None:
    """Say what is wrong with the state; that stops nobody, for the kernel knows the labels too."""
    if state.problem:
        _say(state.problem)


def _read_all() -> bytes:
    data = bytearray()
    while True:
        piece = posix.read(0, 1 << 20)
        if not piece:
            return bytes(data)
        data += piece
        if len(data) > _MAX_BYTES:
            raise ValueError(f"the domain XML has over {_MAX_BYTES} bytes")


def _become_judge(arguments: "Sequence[str]", data: bytes, settings: Settings) -> None:
    """Replace this process by the judge, with the XML on its standard input."""
    document = posix.memfd_create("domain", 0)
    left = memoryview(data)
    while left:
        left = left[posix.write(document, left) :]
    posix.lseek(document, 0, 0)
    posix.dup2(document, 0)
    options = ["--state", settings.state, "--proc", settings.proc, "--journal", settings.journal]
    for rule in settings.ignore:
        options += ["--ignore", rule]
    command = [*settings.judge, *options, "--", *arguments]
    # libvirt's own environment, without what would change how Python works.
    variables = {b"PATH": b"/usr/sbin:/usr/bin:/sbin:/bin", b"LC_ALL": b"C.UTF-8"}
    posix.execve(command[0], command, variables)


# What a document says.


class Look:
    """What the quick look takes from domain XML.

    Attributes:
        name: the guest's name.
        uuid: its UUID.
        kind: type of the SELinux seclabel, or None where there is none.
        label: its label.
        imagelabel: its imagelabel.
        odd: why the judge has to look: something here is not as libvirt generates it.
        images: paths with their modes: ``private``, ``shareable``, ``readonly``.
    """

    def __init__(self) -> None:
        self.name = ""
        self.uuid = ""
        self.kind: Optional[str] = None
        self.label: Optional[str] = None
        self.imagelabel: Optional[str] = None
        self.odd = ""
        self.images: list[tuple[str, str]] = []


def look_at(data: bytes) -> Look:
    """Take from domain XML what the quick look needs.

    Raises:
        ValueError: the document is none, or none of a guest.
    """
    if not data.strip():
        raise ValueError("standard input holds no domain XML")
    return _Reader().read(data)


class _Reader:
    """Goes through a document once; paths of elements are kept as one text."""

    def __init__(self) -> None:
        self._look = Look()
        self._path: list[str] = []
        self._text: Optional[list[str]] = None
        self._selinux = False
        self._models: list[str] = []
        self._disk: Optional[dict[str, str]] = None
        self._sources: list[tuple[str, bool]] = []

    def read(self, data: bytes) -> Look:
        import pyexpat

        parser = pyexpat.ParserCreate()
        parser.buffer_text = True
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._characters
        # libvirt writes none, and entities are declared there.
        parser.StartDoctypeDeclHandler = self._doctype
        try:
            parser.Parse(data, True)
        except pyexpat.ExpatError as error:
            raise ValueError(f"standard input holds no whole domain XML: {error}") from None
        if not self._look.uuid:
            raise ValueError("the domain XML on standard input has no UUID")
        return self._look

    def _doctype(self, *_: object) -> None:
        raise ValueError("the domain XML on standard input declares a document type")

    def _start(self, name: str, attributes: "dict[str, str]") -> None:
        path = self._path
        if not path and name != "domain":
            raise ValueError(f"standard input holds <{name}>, not a domain")
        path.append(name)
        depth = len(path)
        if depth == 1:
            return
        if depth == 2:
            if name in ("name", "uuid"):
                self._text = []
            elif name == "seclabel":
                self._seclabel(attributes)
        elif path[1] == "metadata":
            # Other programs' own; a seclabel there is none.
            return
        elif path[1] == "seclabel":
            if self._selinux and depth == 3:
                if name in ("label", "imagelabel"):
                    self._text = []
                elif not self._look.odd:
                    self._look.odd = f"<{name}> in the seclabel"
        elif name == "seclabel":
            self._look.odd = "a seclabel of a device"
        elif self._disk is not None:
            self._in_disk(name, attributes)
        elif path[1:3] == ["devices", "disk"]:
            self._disk = {"device": attributes.get("device", "disk")}

    def _in_disk(self, name: str, attributes: "dict[str, str]") -> None:
        disk = self._disk
        if disk is None:
            return
        if name == "source":
            source = attributes.get("file") or attributes.get("dev")
            if source and "mirror" not in self._path:
                self._sources.append((source, "backingStore" in self._path))
        elif name in ("readonly", "shareable", "transient") and len(self._path) == 4:
            disk[name] = "yes"

    def _seclabel(self, attributes: "dict[str, str]") -> None:
        model = attributes.get("model", "selinux")
        self._models.append(model)
        self._selinux = model == "selinux"
        if not self._selinux:
            return
        look = self._look
        kind = attributes.get("type", "dynamic")
        if look.kind is not None:
            look.odd = "two SELinux seclabels"
        look.kind = kind
        relabel = attributes.get("relabel", "yes")
        if kind not in ("dynamic", "static"):
            look.odd = f"a seclabel of type {kind!r}"
        elif relabel != "yes":
            look.odd = f"relabel={relabel!r}"

    def _characters(self, text: str) -> None:
        if self._text is not None:
            self._text.append(text)

    def _end(self, name: str) -> None:
        if self._text is not None:
            setattr(self._look, name, "".join(self._text))
            self._text = None
        path = self._path
        path.pop()
        if name == "disk" and len(path) == 2 and self._disk is not None:
            mode = "private"
            if "readonly" in self._disk or self._disk["device"] == "cdrom":
                mode = "readonly"
            elif "shareable" in self._disk:
                mode = "shareable"
            for source, below in self._sources:
                self._look.images.append((source, "readonly" if below else mode))
            self._disk = None
            self._sources = []


# Levels, in the kernel's spelling alone; everything else is the library's.


def categories(context: str) -> int:
    """Return the categories of a context's level as bits, if it is spelt as the kernel does.

    Of a range, the upper level's: a process reaches with it.

    Raises:
        ValueError: it is not; the library may know more.
    """
    level = context.split(":", 3)[3].rpartition("-")[2]
    sensitivity, colon, items = level.partition(":")
    if sensitivity != "s0":
        raise ValueError(f"not of sensitivity s0: {context!r}")
    mask = 0
    for item in items.split(",") if colon else ():
        first, dot, last = item.partition(".")
        low = _number(first)
        high = _number(last) if dot else low
        if high < low or mask >> low:
            raise ValueError(f"not in the kernel's spelling: {context!r}")
        mask |= (2 << high) - (1 << low)
    return mask


def _number(category: str) -> int:
    digits = category[1:]
    if category[:1] != "c" or not digits.isascii() or not digits.isdigit() or len(digits) > 4:
        raise ValueError(f"no category: {category!r}")
    number = int(digits)
    if number > 1023 or str(number) != digits:
        raise ValueError(f"no category: {category!r}")
    return number


#: Types whose processes the categories bind, as libvirt's own configuration names them.
_GUEST_TYPES = (":svirt_t:", ":svirt_tcg_t:", ":svirt_kvm_net_t:", ":svirt_qemu_net_t:")


def _is_well(phase: str, look: Look, state: State, settings: Settings) -> bool:
    """Tell whether there is surely nothing to say; anything doubtful is the judge's."""
    if look.odd:
        return False
    if look.kind is None:
        # No SELinux label: as it should be before libvirt has drawn one, and without SELinux.
        return phase == "prepare" or not _selinux_runs()
    if phase == "prepare" and look.kind == "dynamic":
        return True
    if look.label is None or not any(kind in look.label for kind in _GUEST_TYPES):
        return False
    if phase == "started":
        # Compared at the start already, if that was seen.
        entry = state.entries.get(look.uuid)
        return entry is not None and entry[0] == look.label and _labelled(look)
    try:
        mask = categories(look.label)
        return mask != 0 and not _in_use(mask, look.uuid, state, settings.proc)
    except (ValueError, IndexError):
        return False


def _selinux_runs() -> bool:
    try:
        posix.stat("/sys/fs/selinux/enforce")
    except OSError:
        return False
    return True


def _in_use(mask: int, uuid: str, state: State, proc: str) -> bool:
    """Tell whether a level in use includes these categories, or is included in them."""
    for other, entry in state.entries.items():
        if other != uuid:
            theirs = categories(entry[0])
            if theirs & mask in (theirs, mask):
                return True
    decided: dict[bytes, bool] = {}
    marks = [kind.encode() for kind in _GUEST_TYPES]
    for pid in posix.listdir(proc):
        if not pid.isdigit():
            continue
        context = _read(f"{proc}/{pid}/attr/current")
        clash = decided.get(context)
        if clash is None:
            clash = False
            if b":svirt" in context:
                if not any(mark in context for mark in marks):
                    return True
                theirs = categories(context.decode("ascii").rstrip("\0\n"))
                clash = theirs & mask in (theirs, mask)
            decided[context] = clash
        if clash and b"\0-uuid\0" + uuid.encode() + b"\0" not in _read(f"{proc}/{pid}/cmdline"):
            return True
    return False


def _read(path: str) -> bytes:
    """Return what a file of the kernel's says, or nothing: processes end, and hide."""
    try:
        descriptor = posix.open(path, posix.O_RDONLY)
    except OSError:
        return b""
    try:
        data = piece = posix.read(descriptor, 65536)
        while len(piece) == 65536:
            piece = posix.read(descriptor, 65536)
            data += piece
        return data
    except OSError:
        return b""
    finally:
        posix.close(descriptor)


def _labelled(look: Look) -> bool:
    """Tell whether all images have the labels that libvirt gives; the usual ones are known."""
    for path, mode in look.images:
        try:
            context = posix.getxattr(path, "security.selinux").rstrip(b"\0").decode("ascii")
        except (OSError, ValueError):
            return False
        if mode == "private":
            if context != look.imagelabel:
                return False
        elif not context.endswith(
            ":svirt_image_t:s0" if mode == "shareable" else ":virt_content_t:s0"
        ):
            return False
    return True

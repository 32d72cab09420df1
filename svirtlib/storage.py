"""File-context rules for storage: which rule a path needs, and what becomes of a label.

Everything here is worked out from values; nothing looks at the system. Paths are bytes, as
names of files are; contexts are text.

The sources are libselinux's ``label_file.c`` (which rule wins), libsemanage's
``fcontext_record.c`` and ``validate_handler`` (what a rule may be), and
``selinux_restorecon`` (what becomes of a label that differs).
"""

from __future__ import annotations

import enum
import os
import re
import shlex
import stat
from collections.abc import Iterable, Sequence
from typing import Callable, Optional

from attr import field, frozen

from svirtlib.context import Context
from svirtlib.errors import InvalidContextError, StorageError, quote
from svirtlib.filerules import Rule, clean_path, kind_letter, literal_path

__all__ = [
    "Change",
    "Conflict",
    "Decision",
    "FileKept",
    "FileSystemFacts",
    "Lookup",
    "Plan",
    "Purpose",
    "RuleAction",
    "RuleChange",
    "Target",
    "Verdict",
    "advice_for",
    "belongs_elsewhere",
    "boolean_for",
    "check_path",
    "check_type",
    "decide",
    "escape_path",
    "is_for_guests",
    "looks_like_pattern",
    "pattern_for",
    "plan_rule",
    "shell_commands",
    "system_path",
]

#: The context that a path would get from rules, or None where none gives it one.
Lookup = Callable[[bytes, int], Optional[str]]

#: Signs that are themselves in a pattern only behind a backslash.
_META = b".^$?*+|[](){}\\"


class Purpose(enum.Enum):
    """What storage is for, which decides the type of its rule."""

    #: Guests write to it. libvirt gives each image its guest's label for as long as it runs.
    IMAGES = "images"
    #: Guests only read it: installation media, base images.
    CONTENT = "content"

    @property
    def type(self) -> str:
        """The type that Debian's and Fedora's policies have for it."""
        return "virt_image_t" if self is Purpose.IMAGES else "virt_content_t"


# ---------------------------------------------------------------------------------------------
# Paths
# ---------------------------------------------------------------------------------------------

#: All that lies below belongs to the operating system, not to guests.
_SYSTEM_TREES = [
    "/bin",
    "/boot",
    "/dev",
    "/efi",
    "/etc",
    "/lib",
    "/lib32",
    "/lib64",
    "/libx32",
    "/lost+found",
    "/ostree",
    "/proc",
    "/root",
    "/run",
    "/sbin",
    "/selinux",
    "/sys",
    "/sysroot",
    "/usr",
    "/var/lib/dpkg",
    "/var/lib/apt",
    "/var/lib/rpm",
    "/var/lib/selinux",
    "/var/lib/sepolgen",
    "/var/lib/systemd",
    "/var/lib/svirt-label",
    "/var/log",
    "/var/run",
    "/var/lock",
    "/var/lib/libvirt/qemu",
    "/var/lib/libvirt/dnsmasq",
    "/var/lib/libvirt/swtpm",
]

#: Folders that hold much besides storage of guests; what lies in them may be named.
_SYSTEM_FOLDERS = [
    "/",
    "/home",
    "/media",
    "/mnt",
    "/opt",
    "/srv",
    "/tmp",  # noqa: S108 - to be refused
    "/var",
    "/var/cache",
    "/var/lib",
    "/var/lib/libvirt",
    "/var/local",
    "/var/mail",
    "/var/opt",
    "/var/spool",
    "/var/tmp",  # noqa: S108 - to be refused
]


def check_path(text: str) -> bytes:
    """Return a path that an administrator named, cleaned, or say why it is none.

    Raises:
        StorageError: it is relative, has control characters, or goes upwards.
    """
    if not text:
        raise StorageError("an empty path; name a folder, an image or a block device")
    if any(ord(character) < 32 or ord(character) == 127 for character in text):
        raise StorageError(
            f"{quote(text)}: no rule can be written for a path with a newline or another control "
            f"character, and none is guessed; rename it"
        )
    if not text.startswith("/"):
        raise StorageError(
            f"{quote(text)}: a relative path; file-context rules are for absolute ones: name "
            f"it from / on"
        )
    path = clean_path(os.fsencode(text))
    parts = path.split(b"/")
    if b".." in parts or b"." in parts:
        raise StorageError(
            f"{quote(text)}: names a folder by '.' or '..'; name it as it is called from / on"
        )
    return path


def looks_like_pattern(path: bytes) -> bool:
    """Tell whether something that does not exist was meant as a regular expression."""
    return bool(re.search(rb"[*?|^$\[\]{}]|\.\*|\(|\\", path))


def system_path(path: bytes, homes: Iterable[bytes] = ()) -> Optional[str]:
    """Return why a path must not get a rule for storage, or None.

    Args:
        path: cleaned, see :func:`check_path`.
        homes: the home folders of this host's users.
    """
    text = os.fsdecode(path)
    for tree in _SYSTEM_TREES:
        if text == tree or text.startswith(f"{tree}/"):
            return f"{tree} belongs to the system"
        if tree.startswith(f"{text.rstrip('/')}/") and text not in _SYSTEM_FOLDERS:
            return f"{tree}, which belongs to the system, lies below it"
    if text in _SYSTEM_FOLDERS:
        return "it holds much besides storage of guests; name the folder in it that is for them"
    for home in homes:
        if path == home or home.startswith(path + b"/"):
            return "it is, or holds, a user's home folder; name the folder in it that is for guests"
    return None


def escape_path(path: bytes) -> str:
    r"""Return a pattern that only this path matches.

    Signs of regular expressions get a backslash. White space would end the pattern in
    ``file_contexts``, and libselinux loads no file with bytes outside ASCII: those are written
    as a class of one byte (``[\x20]``). They stand in a class because newer libselinux takes
    a backslash before any other sign for that sign itself.
    """
    parts = []
    for byte in path:
        if byte in _META:
            parts.append(f"\\{chr(byte)}")
        elif 0x20 < byte < 0x7F:
            parts.append(chr(byte))
        else:
            parts.append(f"[\\x{byte:02x}]")
    return "".join(parts)


def pattern_for(path: bytes, *, folder: bool) -> str:
    """Return the pattern for a file, or for a folder and all that is in it."""
    return escape_path(path) + ("(/.*)?" if folder else "")


# ---------------------------------------------------------------------------------------------
# Types
# ---------------------------------------------------------------------------------------------

#: Types of storage for guests in Debian's and Fedora's policies: libvirt relabels images of
#: the first ones when a guest starts, and guests themselves may use the others.
_GUEST_TYPES = frozenset(
    {
        "virt_image_t",
        "virt_content_t",
        "virt_cache_t",
        "virt_var_lib_t",
        "svirt_image_t",
        "svirt_home_t",
        "virt_home_t",
        "fixed_disk_device_t",
        "removable_device_t",
        "public_content_t",
        "public_content_rw_t",
        "container_file_t",
        "container_ro_file_t",
    }
)

#: What storage has where nobody decided on a type for it.
_UNDECIDED = frozenset(
    {
        "default_t",
        "device_t",
        "etc_runtime_t",
        "file_t",
        "home_root_t",
        "mnt_t",
        "nfs_t",
        "root_t",
        "srv_t",
        "tmp_t",
        "unlabeled_t",
        "user_home_t",
        "user_tmp_t",
        "usr_t",
        "var_lib_t",
        "var_t",
        "svirt_tmp_t",
        "svirt_tmpfs_t",
    }
) | (_GUEST_TYPES)


def is_for_guests(type: str) -> bool:
    """Tell whether a type is one for storage of guests.

    Besides those that are known, all whose names say so: policies differ, and have more of them.
    """
    return type in _GUEST_TYPES or type.startswith(("virt_", "svirt_", "qemu_"))


def boolean_for(filesystem: str) -> Optional[str]:
    """Return the boolean that lets guests use images on a type of file system, or None."""
    return _NETWORK.get(_family(filesystem))


def check_type(type: str) -> None:
    """Refuse a type that guests cannot use storage of.

    Raises:
        StorageError: guests have no business with files of it.
    """
    if type in _GUEST_TYPES:
        return
    raise StorageError(
        f"{quote(type)} is no type for storage of guests: neither may guests use it, nor does "
        f"the policy let libvirt relabel it for them; take virt_image_t, or virt_content_t for "
        f"what is only read, or say --any-type where your policy has a type of its own"
    )


# ---------------------------------------------------------------------------------------------
# Rules
# ---------------------------------------------------------------------------------------------


class RuleAction(enum.Enum):
    """What a plan does about one rule."""

    #: There is none for this pattern and kind.
    ADD = "add"
    #: There is a local one with another context.
    MODIFY = "modify"
    #: The same local rule is there already.
    PRESENT = "present"
    #: Other rules give the path and all below it this context already.
    COVERED = "covered"
    #: The file system has one label for all its files; a rule has no effect.
    USELESS = "useless"


@frozen
class Conflict:
    """A rule that wins over the planned one somewhere.

    Attributes:
        pattern: its pattern.
        place: where it stands.
        context: what it gives, or None for ``<<none>>``.
        path: a path for which it wins.
    """

    pattern: str
    place: str
    context: Optional[str]
    path: str


@frozen
class RuleChange:
    """What is done about the rule of one path.

    Attributes:
        action: what is done.
        pattern: the pattern of the rule.
        kind: which files it is for, a letter of ``semanage fcontext -f``.
        context: what they get.
        before: the context that a local rule of this pattern and kind gives now.
        replaces: the type that the rules give the path now, where it is another service's.
        shadowed_by: rules that win over it below the path.
    """

    action: RuleAction
    pattern: str
    kind: str
    context: str
    before: Optional[str] = None
    replaces: Optional[str] = None
    shadowed_by: tuple[Conflict, ...] = ()

    @property
    def pending(self) -> bool:
        """Whether the store has to be changed."""
        return self.action in (RuleAction.ADD, RuleAction.MODIFY)


#: Names below a folder that stand for all there may be.
_PROBES = (
    (b"", stat.S_IFDIR),
    (b"/x", stat.S_IFREG),
    (b"/x", stat.S_IFDIR),
    (b"/x/y.z", stat.S_IFREG),
)


def plan_rule(
    path: bytes,
    mode: int,
    kind: int,
    context: Context,
    rules: Sequence[Rule],
    is_local: Callable[[Rule], bool],
    now: Lookup,
) -> RuleChange:
    """Return what to do about the rule of a path.

    Args:
        path: cleaned path of a folder, file or device, with equivalences applied.
        mode: its ``st_mode``.
        kind: which files the rule is for (``stat.S_IFMT``), 0 for all.
        context: what they shall get.
        rules: all rules, the strongest first.
        is_local: tells which of them are the administrator's.
        now: what the rules give a path now.
    """
    folder = stat.S_ISDIR(mode)
    pattern = pattern_for(path, folder=folder)
    wanted = str(context)
    before = next(
        (
            rule
            for rule in rules
            if rule.kind == kind and rule.pattern == pattern.encode() and is_local(rule)
        ),
        None,
    )
    probes = [
        (path + tail, at)
        for tail, at in (_PROBES if folder else ((b"", mode),))
        if kind in (0, stat.S_IFMT(at))
    ]
    answers = [now(*probe) for probe in probes]
    current = now(path, stat.S_IFMT(mode))
    replaces = _type_of(current)
    if before is not None or replaces in _UNDECIDED or replaces == context.type:
        replaces = None
    action = RuleAction.ADD
    if before is not None:
        action = RuleAction.PRESENT if before.context == wanted else RuleAction.MODIFY
    elif answers and all(_same(answer, context) for answer in answers):
        action = RuleAction.COVERED
    shadows = (
        ()
        if action is RuleAction.COVERED
        else tuple(_stronger(path, kind, wanted, before, rules, is_local, probes))
    )
    return RuleChange(
        action=action,
        pattern=pattern,
        kind=kind_letter(kind),
        context=wanted,
        before=None if before is None else before.context or "<<none>>",
        replaces=replaces,
        shadowed_by=shadows,
    )


def _stronger(
    path: bytes,
    kind: int,
    wanted: str,
    before: Optional[Rule],
    rules: Sequence[Rule],
    is_local: Callable[[Rule], bool],
    probes: Sequence[tuple[bytes, int]],
) -> Iterable[Conflict]:
    """Yield rules that win over one for *path*.

    Rules for one path alone win over patterns. Of patterns the later one wins, and a new rule
    is the last one; one that is there already may have others behind it.
    """
    alone = literal_path(escape_path(path).encode()) is not None and len(probes) == 1
    weaker = before is None
    for rule in rules:
        weaker = weaker or rule is before
        if rule is before or rule.context == wanted or (rule.kind and kind and rule.kind != kind):
            continue
        exact = literal_path(rule.pattern)
        if exact is not None:
            if exact.startswith(path + b"/") or (exact == path and not (alone and weaker)):
                yield _conflict(rule, exact)
        elif not weaker and is_local(rule):
            for probe, mode in probes:
                if rule.kind in (0, stat.S_IFMT(mode)) and _matches(rule.pattern, probe):
                    yield _conflict(rule, probe)
                    break


def _matches(pattern: bytes, path: bytes) -> bool:
    try:
        return re.fullmatch(pattern, path, re.DOTALL) is not None
    except re.error:
        return False


def _conflict(rule: Rule, path: bytes) -> Conflict:
    return Conflict(rule.pattern.decode("ascii", "replace"), rule.place, rule.context, shown(path))


def _same(answer: Optional[str], context: Context) -> bool:
    if answer is None:
        return False
    try:
        return Context.parse(answer) == context
    except InvalidContextError:
        return False


def _type_of(context: Optional[str]) -> Optional[str]:
    parts = (context or "").split(":")
    return parts[2] if len(parts) > 2 else None


# ---------------------------------------------------------------------------------------------
# Labels
# ---------------------------------------------------------------------------------------------


class Verdict(enum.Enum):
    """What becomes of a file's label."""

    RIGHT = "right"
    CHANGE = "change"
    #: No rule gives it a context, or a rule says ``<<none>>``.
    NO_RULE = "no rule"
    #: The policy leaves files of its type to the administrator.
    CUSTOMIZABLE = "customizable"
    #: It has a guest's label; which guest's, and whether it is needed, `image inspect` tells.
    GUEST_LABEL = "label of a guest"


@frozen
class Decision:
    """What becomes of a label, and the new one where it changes."""

    verdict: Verdict
    context: Optional[str] = None


#: What libvirt gives images of guests.
_GUEST_LABELS = frozenset({"svirt_image_t", "svirt_home_t", "svirt_tmp_t", "svirt_tmpfs_t"})


def decide(
    current: Optional[str],
    wanted: Optional[str],
    customizable: frozenset[str] = frozenset(),
    *,
    force: bool = False,
) -> Decision:
    """Decide what becomes of a file's label, as ``restorecon`` does.

    A file without a label gets the whole context. Of one with a label only the type is
    changed; user, role and range stay. A label with a customizable type stays, and so does one
    that libvirt gave: a type of guests' images with categories.

    Args:
        current: the label that the file has, or None.
        wanted: the context that the rules give it, or None.
        customizable: types that the policy leaves to the administrator.
        force: set the whole context, whatever it is now (``restorecon -F``).
    """
    if wanted is None:
        return Decision(Verdict.NO_RULE)
    if current == wanted:
        return Decision(Verdict.RIGHT)
    # In canonical form, or it would never equal what the kernel says of the file.
    new = Context.parse(wanted)
    wanted = str(new)
    if current is None:
        return Decision(Verdict.CHANGE, wanted)
    try:
        old = Context.parse(current)
    except InvalidContextError:
        return Decision(Verdict.CHANGE, wanted)
    if old == new:
        # Spelt otherwise; the kernel itself writes it in one way alone.
        return Decision(Verdict.RIGHT)
    if force:
        return Decision(Verdict.CHANGE, wanted)
    if old.type == new.type:
        return Decision(Verdict.RIGHT)
    if old.type in _GUEST_LABELS and old.level is not None and old.level.mask:
        return Decision(Verdict.GUEST_LABEL)
    if old.type in customizable:
        return Decision(Verdict.CUSTOMIZABLE)
    return Decision(Verdict.CHANGE, str(old.with_type(new.type)))


def belongs_elsewhere(label: bytes) -> bool:
    """Tell whether a label's type is one that some other rule gave on purpose."""
    parts = label.rstrip(b"\0").split(b":", 3)
    return len(parts) > 2 and parts[2].decode("ascii", "replace") not in _UNDECIDED


# ---------------------------------------------------------------------------------------------
# File systems
# ---------------------------------------------------------------------------------------------


@frozen
class FileSystemFacts:
    """What one mount says of labels.

    Attributes:
        mount_point: where it is mounted.
        type: its type, such as ``ext4`` or ``fuse.sshfs``.
        options: its options and its super block's.
        selinux: whether SELinux runs, so that the kernel tells which mounts carry labels.
        source: what is mounted there.
        refuses: it said so itself that it has no labels of files.
    """

    mount_point: str
    type: str
    options: frozenset[str]
    selinux: bool
    source: str = ""
    refuses: bool = False

    @property
    def fixed_context(self) -> Optional[str]:
        """The one context of all its files, if it was mounted with ``context=``."""
        for option in self.options:
            name, _, value = option.partition("=")
            if name == "context":
                return value.strip('"')
        return None

    @property
    def labels(self) -> bool:
        """Whether each file has a label of its own there."""
        if self.fixed_context is not None or self.refuses:
            return False
        if self.selinux:
            # The kernel marks mounts on which labels can be changed (selinux_sb_show_options).
            return "seclabel" in self.options
        return _family(self.type) not in _WITHOUT_LABELS

    @property
    def shared(self) -> bool:
        """Whether other hosts may use its files."""
        return _family(self.type) in _SHARED


_NETWORK = {
    "nfs": "virt_use_nfs",
    "nfs4": "virt_use_nfs",
    "cifs": "virt_use_samba",
    "smb3": "virt_use_samba",
    "fuse": "virt_use_fusefs",
    "fuseblk": "virt_use_fusefs",
    "glusterfs": "virt_use_fusefs",
}

_FOREIGN = frozenset(
    ["vfat", "msdos", "exfat", "ntfs", "ntfs3", "iso9660", "udf", "hfs", "hfsplus", "squashfs"]
)

_WITHOUT_LABELS = frozenset(_NETWORK) | _FOREIGN | frozenset({"proc", "sysfs", "9p", "virtiofs"})

_SHARED = frozenset(
    [
        "nfs",
        "nfs4",
        "cifs",
        "smb3",
        "fuse",
        "glusterfs",
        "ceph",
        "gfs2",
        "ocfs2",
        "lustre",
        "gpfs",
        "9p",
        "virtiofs",
        "afs",
    ]
)


def _family(type: str) -> str:
    return type.split(".", 1)[0]


def advice_for(facts: FileSystemFacts, context: str) -> Optional[str]:
    """Return what to do instead of labelling files there, or None where they carry labels."""
    if facts.labels:
        return None
    if facts.fixed_context is not None:
        text = f"{facts.mount_point} is mounted with context={facts.fixed_context}, the one label "
        text += "of all its files"
        if _type_of(facts.fixed_context) == _type_of(context):
            return f"{text}; that is the type that is wanted: nothing is to be done"
        return (
            f"{text}; mount it with -o {shlex.quote(f'context={_quoted(context)}')} instead, or "
            f"without context= if it carries labels"
        )
    family = _family(facts.type)
    mount = f"-o {shlex.quote(f'context={_quoted(context)}')}"
    boolean = _NETWORK.get(family)
    text = f"{facts.mount_point} ({facts.type}) carries no labels of files"
    if boolean is not None:
        more = ""
        if family in ("nfs", "nfs4"):
            more = (
                "; NFS 4.2 carries labels where the server exports with security_label and the "
                "client mounts with vers=4.2"
            )
        return (
            f"{text}; let guests use it all the same with 'setsebool -P {boolean} on', or mount it "
            f"with {mount}{more}. Either way all guests reach all images there"
        )
    return f"{text}; mount it with {mount}: all guests then reach all images there"


def _quoted(context: str) -> str:
    return f'"{context}"' if "," in context else context


# ---------------------------------------------------------------------------------------------
# Plans
# ---------------------------------------------------------------------------------------------


@frozen
class Target:
    """One thing that was named, and what is done about it.

    Attributes:
        path: where it lies, as rules see it.
        folder: whether it is a folder.
        rule: what is done about its rule.
        labels: whether files there carry labels.
        advice: what to do instead where they do not.
        satisfied: their one label has the wanted type already.
        notes: what else there is to say.
    """

    path: bytes
    folder: bool
    rule: RuleChange
    labels: bool = True
    advice: Optional[str] = None
    satisfied: bool = False
    notes: tuple[str, ...] = ()


@frozen
class Change:
    """A file whose label changes."""

    path: str
    old: Optional[str]
    new: str


@frozen
class FileKept:
    """A file whose label differs and is left alone, and why."""

    path: str
    label: Optional[str]
    reason: str


@frozen
class Plan:
    """What ``apply`` would do.

    Attributes:
        targets: one for each path.
        checked: how many files were looked at.
        to_change: how many of them would change.
        changes: the first of these.
        kept_count: how many differ and would be left alone.
        kept: the first of these.
        unreadable: what could not be looked at, each with a reason.
        notes: what holds for the whole plan.
    """

    targets: tuple[Target, ...]
    checked: int = 0
    to_change: int = 0
    changes: tuple[Change, ...] = ()
    kept_count: int = 0
    kept: tuple[FileKept, ...] = ()
    unreadable: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = field(default=())

    @property
    def pending(self) -> bool:
        """Whether ``apply`` would change anything."""
        return self.to_change > 0 or any(target.rule.pending for target in self.targets)


def shell_commands(targets: Iterable[Target], *, force: bool = False) -> list[str]:
    """Return what an administrator would type to do the same by hand."""
    commands = []
    for target in targets:
        rule = target.rule
        if rule.pending:
            words = ["semanage", "fcontext", "-a" if rule.action is RuleAction.ADD else "-m"]
            context = Context.parse(rule.context)
            if rule.kind != "a":
                words += ["-f", rule.kind]
            if context.user != "system_u":
                words += ["-s", context.user]
            if context.range is not None and str(context.range) != "s0":
                words += ["-r", str(context.range)]
            commands.append(shlex.join([*words, "-t", context.type, rule.pattern]))
    for target in targets:
        if target.labels:
            options = ["-R"] if target.folder else []
            options += ["-v", *(["-F"] if force else [])]
            commands.append(shlex.join(["restorecon", *options, shown(target.path)]))
    return commands


def shown(path: bytes) -> str:
    """Return a path as text."""
    return os.fsdecode(path)

"""``storage verify``: what it finds, what it says, and that nobody leads it astray."""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import shutil
import socket
import stat
import subprocess
import threading
from pathlib import Path

import pytest
from checkrun import run
from jsonschema import Draft202012Validator
from needs import require, require_program
from privileges import as_nobody

from svirtlib.backends import verify as module
from svirtlib.backends._selabel import Selabel
from svirtlib.backends.verify import verify
from svirtlib.cli.exitcodes import ExitCode
from svirtlib.errors import BackendDataError, StorageError

pytestmark = pytest.mark.root

LABEL = "security.selinux"
SCHEMA = json.loads(
    (Path(module.__file__).parent.parent / "schemas" / "storage-verify-1.json").read_text()
)
IMAGE = "system_u:object_r:virt_image_t:s0"
RULES = f"""\
/.* system_u:object_r:default_t:s0
/storage(/.*)? {IMAGE}
/storage/none(/.*)? <<none>>
/storage/pipes/.* -p system_u:object_r:pipe_t:s0
/storage/.*\\.iso -- system_u:object_r:virt_content_t:s0
/storage/lib(/.*)? system_u:object_r:lib_t:s0
/storage/exact -- system_u:object_r:exact_t:s0
"""


class Host:
    """An unpacked system with a policy of few rules."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.files = folder / "etc/selinux/small/contexts/files"
        self.files.mkdir(parents=True)
        (folder / "etc/selinux/config").write_text("SELINUX=enforcing\nSELINUXTYPE=small\n")
        (self.files / "file_contexts").write_text(RULES)
        (self.files / "file_contexts.subs").write_text("/alias /storage\n")
        (self.files.parent / "customizable_types").write_text("mine_t\n")
        (folder / "storage").mkdir()

    def add(self, path: bytes, label: str | None = IMAGE, kind: int = stat.S_IFREG) -> bytes:
        full = os.fsencode(self.folder) + path
        os.makedirs(os.path.dirname(full), exist_ok=True)
        if kind == stat.S_IFDIR:
            os.makedirs(full, exist_ok=True)
        elif kind == stat.S_IFLNK:
            os.symlink("/etc/passwd", full)
        elif kind == stat.S_IFSOCK:
            if os.path.lexists(full):
                raise FileExistsError
            with socket.socket(socket.AF_UNIX) as server:
                server.bind(full)
        else:
            os.mknod(full, kind | 0o600, os.makedev(1, 3))
        if label is not None:
            os.setxattr(full, LABEL, label.encode() + b"\0", follow_symlinks=False)
        return full

    def label_all(self) -> None:
        """Give everything the label that libselinux says."""
        judge = Selabel(str(self.files / "file_contexts"))
        for full, path in self.everything():
            text = judge.lookup(path, os.lstat(full).st_mode)
            if text is not None:
                os.setxattr(full, LABEL, text.encode() + b"\0", follow_symlinks=False)

    def everything(self):
        top = os.fsencode(self.folder)
        for folder, folders, files in os.walk(top + b"/storage"):
            for full in [folder, *(os.path.join(folder, name) for name in files)]:
                yield full, full[len(top) :]
            for name in folders:
                full = os.path.join(folder, name)
                if os.path.islink(full):
                    yield full, full[len(top) :]

    def verify(self, *paths: bytes, **options):
        return verify(paths or (b"/storage",), root=str(self.folder), **options)


@pytest.fixture
def host(tmp_path):
    host = Host(tmp_path / "host")
    host.label_all()
    return host


def test_each_file_counts_once_for_what_it_is(host):
    host.add(b"/storage/right")
    host.add(b"/storage/other type", "system_u:object_r:default_t:s0")
    host.add(b"/storage/without", None)
    host.add(b"/storage/none", None, stat.S_IFDIR)
    host.add(b"/storage/mine", "system_u:object_r:mine_t:s0")
    host.add(b"/storage/guest", "system_u:object_r:svirt_image_t:s0:c1,c2")
    host.add(b"/storage/range", IMAGE + ":c7")
    host.add(b"/storage/x.iso", "system_u:object_r:virt_content_t:s0")
    host.add(b"/storage/nonsense", "nonsense")
    found = host.verify()
    assert (found.checked, found.right, found.no_rule) == (10, 3, 1)
    assert (found.customizable, found.guest_labels, found.other_parts) == (1, 1, 1)
    assert [(drift.path, drift.old, drift.new) for drift in found.drifts] == [
        ("/storage/nonsense", "nonsense", IMAGE),
        ("/storage/other type", "system_u:object_r:default_t:s0", IMAGE),
        ("/storage/without", None, IMAGE),
    ]
    assert found.drift_count == 3
    assert found.complete
    whole = host.verify(force=True)
    assert (whole.drift_count, whole.right, whole.other_parts, whole.guest_labels) == (6, 3, 0, 0)


def test_a_range_that_a_rule_spells_otherwise_is_the_same(host):
    (host.files / "file_contexts.local").write_text(f"/storage/r {IMAGE}:c2,c1\n")
    host.add(b"/storage/r", IMAGE + ":c1,c2")
    assert host.verify(b"/storage/r", force=True).right == 1


def test_a_label_without_the_nul_is_the_same(host):
    full = host.add(b"/storage/x")
    os.setxattr(full, LABEL, IMAGE.encode())
    assert host.verify().right == 2


def test_a_rule_without_a_context_is_told(host):
    (host.files / "file_contexts.local").write_text("/storage/x nonsense\n")
    host.add(b"/storage/x")
    with pytest.raises(BackendDataError, match="nonsense"):
        host.verify()


def _hostile(host, draw, count=120):
    """Every kind of file under names of every sort, some with wrong labels."""
    kinds = [stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK, stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFBLK]
    kinds.append(stat.S_IFCHR)
    names = [b"a", b"a b", b"new\nline", b"end\n", b"\xff\xfe", b"x.iso", b"lib", b"pipes", b"none"]
    names += [b"exact", b"\xc3\xa9.iso", b"-rf", b"%s", b"*", b"\\", b"\x1b[31m", b"a.iso\n"]
    made = set()
    for number in range(count):
        parts = draw.choices(names, k=draw.randint(1, 3))
        path = b"/storage/" + b"/".join(parts) + b"%d" % draw.randint(0, 3) * draw.randint(0, 1)
        above = host.folder / os.fsdecode(os.path.dirname(path))[1:]
        with contextlib.suppress(FileExistsError, NotADirectoryError):
            if not above.exists() or above.is_dir():
                host.add(path, None, kinds[number % len(kinds)])
                made.add(path)
    host.label_all()
    return made


def test_says_of_a_hostile_tree_what_libselinux_says(host):
    draw = random.Random(11)
    assert len(_hostile(host, draw)) > 60
    found = host.verify(most=None)
    assert (found.drift_count, found.unreadable_count) == (0, 0)
    judge = Selabel(str(host.files / "file_contexts"))
    expected: dict[str, tuple[str | None, str]] = {}
    for full, path in host.everything():
        wanted = judge.lookup(path, os.lstat(full).st_mode)
        change = draw.choice(("keep", "remove", "change"))
        if wanted is None or change == "keep":
            continue
        if change == "remove":
            os.removexattr(full, LABEL, follow_symlinks=False)
            expected[os.fsdecode(path)] = None, wanted
        else:
            os.setxattr(full, LABEL, b"a:b:wrong_t:s0", follow_symlinks=False)
            expected[os.fsdecode(path)] = "a:b:wrong_t:s0", "a:b:" + wanted.split(":", 2)[2]
    found = host.verify(most=None)
    assert {drift.path: (drift.old, drift.new) for drift in found.drifts} == expected
    assert [drift.path for drift in found.drifts] == sorted(expected, key=os.fsencode)
    assert found.checked == sum(1 for _ in host.everything())


@pytest.mark.parametrize("force", [False, True])
def test_names_the_files_that_setfiles_would_relabel(host, force):
    setfiles = require_program("setfiles", package="policycoreutils")
    draw = random.Random(3)
    _hostile(host, draw, 60)
    labels = [b"a:b:wrong_t:s0:c3", b"system_u:object_r:mine_t:s0", IMAGE.encode() + b":c1", None]
    for full, _ in host.everything():
        label = draw.choice(labels)
        if label is None:
            with contextlib.suppress(OSError):
                os.removexattr(full, LABEL, follow_symlinks=False)
        elif draw.random() < 0.5:
            os.setxattr(full, LABEL, label + b"\0", follow_symlinks=False)
    root = str(host.folder)
    # setfiles reads customizable_types of the host that it runs on, so the type is none there.
    (host.files.parent / "customizable_types").write_text("")
    command = [setfiles, "-n", "-v", "-r", root, str(host.files / "file_contexts")]
    command[3:3] = ["-F"] * force
    done = subprocess.run([*command, f"{root}/storage"], capture_output=True, check=True)
    told = re.findall(
        rb"^Would relabel " + re.escape(os.fsencode(root)) + rb"(.*?) from \S+ to (\S+)$",
        done.stdout,
        re.MULTILINE | re.DOTALL,
    )
    found = host.verify(most=None, force=force)
    ours = {(os.fsencode(drift.path), drift.new.encode()) for drift in found.drifts}
    assert ours == set(told)
    assert ours


def test_several_processes_find_what_one_finds(host, monkeypatch):
    monkeypatch.setattr(module, "_ALONE", 5)
    draw = random.Random(7)
    for number in range(300):
        label = draw.choice((IMAGE, "system_u:object_r:default_t:s0", None))
        host.add(b"/storage/%d/%d/%d" % (number % 3, number % 20, number), label)
    counts = []
    alone = host.verify(most=10)
    together = host.verify(most=10, jobs=3, progress=counts.append)
    assert alone == together
    assert counts[-1] == alone.checked
    assert len(alone.drifts) == 10


def test_a_process_that_fails_is_no_clean_result(host, monkeypatch):
    monkeypatch.setattr(module, "_ALONE", 5)
    for number in range(60):
        host.add(b"/storage/%d/%d" % (number % 20, number))
    monkeypatch.setattr(module._Work, "share", lambda *_: os._exit(3))
    with pytest.raises(Exception, match="terminated abruptly"):
        host.verify(jobs=2)


def test_nothing_outside_is_looked_at_while_folders_are_swapped(host):
    outside = host.folder / "outside"
    (outside / "d" / "d").mkdir(parents=True)
    for folder in (outside, outside / "d", outside / "d" / "d"):
        for number in range(20):
            path = folder / f"f{number}"
            path.touch()
            os.setxattr(path, LABEL, b"system_u:object_r:outside_t:s0\0")
    for number in range(60):
        host.add(b"/storage/a/d/f%d" % number)
        host.add(b"/storage/a/d/d/f%d" % number)
    host.label_all()
    a = host.folder / "storage" / "a"
    stop = threading.Event()

    def swap():
        while not stop.is_set():
            for inner in (a / "d" / "d", a / "d", a):
                hidden = host.folder / "hidden"
                os.rename(inner, hidden)
                os.symlink(outside, inner)
                os.unlink(inner)
                os.rename(hidden, inner)

    enemy = threading.Thread(target=swap)
    enemy.start()
    try:
        for _ in range(60):
            try:
                found = host.verify(most=None)
            except StorageError:
                continue
            assert "outside_t" not in str(found.drifts)
    finally:
        stop.set()
        enemy.join()
    assert host.verify().drift_count == 0


def test_one_path_that_is_missing_leaves_the_others_judged(host):
    found = host.verify(b"/storage", b"/gone")
    assert found.checked == 1
    assert not found.complete
    assert "no such file" in found.unreadable[0].reason
    with pytest.raises(StorageError, match="no such file"):
        host.verify(b"/gone")
    (host.folder / "link").symlink_to("storage")
    with pytest.raises(StorageError, match="symbolic link"):
        host.verify(b"/link/x")


def test_file_systems_without_labels_are_told(host):
    mounted = host.add(b"/storage/proc", IMAGE, stat.S_IFDIR)
    done = subprocess.run(
        ["mount", "-t", "proc", "proc", mounted], capture_output=True, check=False
    )
    require(done.returncode == 0, f"no mounts here: {done.stderr!r}")
    try:
        found = host.verify()
        assert (found.left_out, found.unreadable_count) == (("/storage/proc",), 0)
        assert found.checked == found.right == 1
        found = host.verify(cross=True)
        assert found.unreadable_count == 1
        assert "the kernel's own" in found.unreadable[0].reason
    finally:
        subprocess.run(["umount", mounted], check=True)


def _storage(host, *words):
    return run("storage", "verify", "--root", host.folder, *words)


def test_the_command_tells_what_differs_and_what_to_do(host):
    assert _storage(host, "/storage").code == ExitCode.OK
    host.add(b"/storage/\x1b[31m\n", None)
    outcome = _storage(host, "/storage")
    assert outcome.code == ExitCode.FINDINGS
    assert outcome.out.startswith("1 of 2 files differs from the rules\n")
    assert "\x1b" not in outcome.out
    assert f"no label -> {IMAGE}" in outcome.out
    assert f"svirt-label storage apply --root {host.folder} /storage" in outcome.out


def test_the_document_is_what_its_schema_says(host):
    host.add(b"/storage/\xff", None)
    host.add(b"/storage/b", None)
    outcome = _storage(host, "--format", "json", "--max-changes", "1", "/storage", "/gone")
    assert outcome.code == ExitCode.FINDINGS
    document = outcome.report
    Draft202012Validator(SCHEMA).validate(document)
    assert document["drift"] == [{"path": "/storage/b", "from": None, "to": IMAGE}]
    assert not document["drift_complete"]
    assert not document["complete"]
    files = document["files"]
    parts = ("right", "drift", "no_rule", "customizable", "guest_labels", "other_parts")
    assert files["checked"] == sum(files[part] for part in parts) == 3
    everything = _storage(host, "--format", "json", "--max-changes", "all", "/storage").report
    assert os.fsencode(everything["drift"][1]["path"]) == b"/storage/\xff"


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("storage",), ExitCode.USAGE, "a relative path"),
        (("/storage/../etc",), ExitCode.USAGE, "'.' or '..'"),
        (("",), ExitCode.USAGE, "an empty path"),
        ((), ExitCode.USAGE, "PATH"),
        (("/gone",), ExitCode.USAGE, "no such file"),
        (("--jobs", "0", "/storage"), ExitCode.USAGE, "from 1 to 256"),
        (("--max-changes", "few", "/storage"), ExitCode.USAGE, "neither a number nor 'all'"),
    ],
)
def test_bad_input_is_refused(host, words, code, says):
    outcome = _storage(host, *words)
    assert outcome.code == code
    assert says in outcome.err


def test_a_root_without_a_policy_is_no_clean_one(host):
    shutil.rmtree(host.folder / "etc")
    outcome = _storage(host, "/storage")
    assert outcome.code == ExitCode.ENVIRONMENT
    assert "there is no SELinux policy" in outcome.err


def test_what_may_not_be_read_makes_it_incomplete(host):
    host.add(b"/storage/closed/x")
    host.label_all()
    os.chmod(host.folder / "storage" / "closed", 0o700)
    for above in (host.folder, *host.folder.parents[:-2]):
        os.chmod(above, 0o755)
    assert run("storage", "verify", "--root", host.folder, "/storage").code == ExitCode.OK
    with as_nobody():
        outcome = _storage(host, "/storage")
    assert outcome.code == ExitCode.INCOMPLETE
    assert "/storage/closed: cannot be looked at: Permission denied; run as root" in outcome.err


def test_where_selinux_is_off_it_says_so_and_compares_only_when_told_to(tmp_path):
    with open("/proc/filesystems", encoding="ascii") as stream:
        require("selinuxfs" not in stream.read(), "SELinux runs here")
    outcome = run("storage", "verify", tmp_path)
    assert outcome.code == ExitCode.ENVIRONMENT
    assert "SELinux is off" in outcome.err
    require(os.path.exists("/etc/selinux/config"), "no policy (selinux-policy-default)")
    outcome = run("storage", "verify", "--offline", tmp_path)
    assert outcome.code in (ExitCode.OK, ExitCode.FINDINGS)
    assert "SELinux is disabled here" in outcome.err

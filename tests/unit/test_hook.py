"""libvirt's hook: what it does with documents, phases and states that a real libvirt seldom has."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
from checkrun import run
from hypothesis import given
from hypothesis import strategies as st
from xmlmaker import context, disk, guest, image_context, uuid_of

from svirtlib import Level
from svirtlib.backends.hook import quick
from svirtlib.backends.hook.judge import judge_document
from svirtlib.backends.hook.state import State
from svirtlib.errors import SelectionError

ROOT = Path(__file__).resolve().parents[2]
HARMLESS = ("stopped", "release", "migrate", "restore", "reconnect", "attach")


class Host:
    """A made-up /proc, and the hook's state."""

    def __init__(self, folder: Path) -> None:
        self.proc = folder / "proc"
        self.proc.mkdir()
        self.state = folder / "run" / "hook"
        self.folder = folder
        self._next = 100

    def running(self, name, level, *, command=None, kind="svirt_t"):
        """A process of a guest."""
        directory = self.proc / str(self._next)
        self._next += 1
        (directory / "attr").mkdir(parents=True)
        words = command or ["qemu", "-name", f"guest={name}", "-uuid", uuid_of(name)]
        (directory / "cmdline").write_bytes(b"".join(word.encode() + b"\0" for word in words))
        (directory / "comm").write_text("qemu\n")
        (directory / "attr" / "current").write_text(context(level, kind) + "\0")

    def settings(self, **chosen):
        return quick.Settings(
            state=str(self.state),
            proc=str(self.proc),
            journal=str(self.folder / "nobody-listens"),
            judge=(sys.executable, "-I", "-m", "svirtlib.backends.hook.judge"),
            **chosen,
        )

    def judge(self, document, phase="start", **options):
        verdict = judge_document(
            document.encode(), phase, folder=str(self.state), proc=str(self.proc), **options
        )[1]
        return verdict, [finding.rule for finding in verdict.stops]

    def noted(self):
        with State(str(self.state)) as state:
            return {entry[1]: entry[0] for entry in state.entries.values()}

    def look(self, document, phase="start"):
        """Whether the quick look alone is sure that all is well."""
        with State(str(self.state)) as state:
            return quick._is_well(phase, quick.look_at(document.encode()), state, self.settings())


@pytest.fixture
def host(tmp_path):
    return Host(tmp_path)


def call(host, *arguments, document=b"", **chosen):
    """Run the hook as libvirt does, as a process of its own."""
    names = ("fail", "seconds", "judge", "ignore", "state", "proc", "journal")
    values = vars(host.settings()) | chosen
    settings = {name: values[name] for name in names}
    code = (
        f"import sys; sys.path.append({str(ROOT)!r}); from svirtlib.backends.hook import quick; "
        f"quick.run(sys.argv[1:], quick.Settings(**{settings!r}))"
    )
    return subprocess.run(
        ["/usr/bin/python3", "-I", "-S", "-c", code, *arguments],
        input=document,
        capture_output=True,
        timeout=60,
    )


# What the quick look decides, against what the full one says.


@pytest.mark.parametrize(
    ("document", "phase"),
    [
        (guest("a", how="dynamic", live=False), "prepare"),
        (guest("a", "s0:c1,c2", how="static", live=False), "prepare"),
        (guest("a", "s0:c1,c2"), "start"),
        (guest("a", "s0:c1,c2", how="static"), "start"),
        (guest("a", "s0:c1,c2"), "reconnect"),
        (guest("a", "s0:c1.c5", how="static"), "start"),
    ],
)
def test_what_libvirt_generates_needs_no_judge(host, document, phase):
    host.running("other", "s0:c3,c9")
    host.running("host service", "s0-s0:c0.c1023", kind="init_t", command=["/sbin/init"])
    assert host.look(document, phase)
    assert host.judge(document, phase)[1] == []


@pytest.mark.parametrize(
    ("level", "rule"),
    [
        ("s0:c1,c2", "label-collision"),
        ("s0:c1", "label-exposure"),
        ("s0:c0.c1023", "label-exposure"),
        ("s0:c1,c2,c3", "label-exposure"),
        ("s0-s0:c1,c2", "label-collision"),
    ],
)
@pytest.mark.parametrize("phase", ["prepare", "start"])
def test_a_process_in_the_way(host, level, rule, phase):
    host.running("other", level)
    document = guest("a", "s0:c1,c2", how="static", live=phase != "prepare")
    assert not host.look(document, phase)
    verdict, rules = host.judge(document, phase)
    assert rules == [rule]
    assert "other" in verdict.text
    assert "Way out: " in verdict.text
    assert "a" not in host.noted()


def test_the_guest_s_own_process_is_not_in_its_way(host):
    host.running("a", "s0:c1,c2")
    document = guest("a", "s0:c1,c2")
    assert host.look(document, "reconnect")
    assert host.judge(document, "reconnect")[1] == []


def test_a_helper_of_the_guest_s_own_is_not_in_its_way(host):
    host.running("a", "s0:c1,c2")
    host.running("a", "s0:c1,c2", command=["swtpm", "socket"])
    assert host.judge(guest("a", "s0:c1,c2"), "started")[1] == []


def test_a_start_that_has_no_process_yet_is_known_from_the_state(host):
    assert host.judge(guest("first", "s0:c1,c2"))[1] == []
    assert host.noted() == {"first": context("s0:c1,c2")}
    assert not host.look(guest("second", "s0:c2,c1", how="static"))
    assert host.judge(guest("second", "s0:c2,c1", how="static"))[1] == ["label-collision"]


def test_the_kernel_s_word_wins_over_the_state(host):
    host.judge(guest("first", "s0:c1,c2"))
    host.running("first", "s0:c7,c8")
    assert host.judge(guest("second", "s0:c1,c2", how="static"))[1] == []


def test_a_guest_whose_release_was_missed_is_forgotten_in_time(host, monkeypatch):
    host.judge(guest("first", "s0:c1,c2"))
    later = time.time() + 3600
    monkeypatch.setattr(time, "time", lambda: later)
    assert host.judge(guest("second", "s0:c1,c2"))[1] == []
    assert list(host.noted()) == ["second"]


@pytest.mark.slow
def test_doubled_and_missing_phases(host):
    document = guest("a", "s0:c1,c2").encode()
    for phase in ("release", "stopped", "start", "start", "started", "reconnect"):
        assert call(host, "a", phase, "begin", "-", document=document).returncode == 0, phase
    assert list(host.noted()) == ["a"]
    for _ in range(2):
        assert call(host, "a", "release", "end", "shutdown", document=document).returncode == 0
    assert host.noted() == {}


def test_a_collision_can_be_accepted(host):
    host.running("other", "s0:c1,c2")
    both = ["label-collision=a", "label-collision=other"]
    assert host.judge(guest("a", "s0:c1,c2"), ignore=both)[1] == []
    # A guest that does not run now is no mistake.
    assert host.judge(guest("a", "s0:c1,c2"), ignore=["label-collision=gone"])[1] != []
    with pytest.raises(SelectionError):
        host.judge(guest("a", "s0:c1,c2"), ignore=["label-colision"])


def test_an_unconfined_guest_is_told_of_and_starts(host):
    document = guest("a", how="none")
    assert not host.look(document)
    verdict, rules = host.judge(document)
    assert rules == []
    assert [finding.rule for finding in verdict.told] == ["guest-unconfined"]


# Real labels of images.


@pytest.mark.root
@pytest.mark.parametrize(
    ("label", "well"),
    [
        (image_context("s0:c1,c2"), True),
        (image_context("s0"), False),
        (image_context("s0:c1,c2,c3"), False),
        (None, False),
    ],
)
def test_images_are_looked_at_once_they_are_labelled(host, label, well):
    image = host.folder / "a.raw"
    image.touch()
    if label is not None:
        os.setxattr(image, "security.selinux", label.encode())
    document = guest("a", "s0:c1,c2", disks=[disk(str(image), format_="raw")])
    host.running("other", "s0:c3,c4")
    host.judge(document, "start")
    assert host.look(document, "started") == well
    verdict, rules = host.judge(document, "started")
    assert rules == (["image-exposure"] if label == image_context("s0") else [])
    assert bool(verdict.told or verdict.stops or verdict.unknown) != well


# The process: statuses, streams, and what is no proper call.


def test_a_veto_says_why_on_standard_error_alone(host):
    host.running("other", "s0:c1,c2")
    done = call(host, "a", "start", "begin", "-", document=guest("a", "s0:c1,c2").encode())
    assert (done.returncode, done.stdout) == (1, b"")
    assert b"other" in done.stderr
    assert b"Traceback" not in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("phase", HARMLESS)
def test_no_other_phase_ever_fails(host, phase):
    host.running("other", "s0:c1,c2")
    for document in (guest("a", "s0:c1,c2").encode(), b"<domain"):
        done = call(host, "a", phase, "begin", "-", document=document, fail="closed")
        assert (done.returncode, done.stdout) == (0, b"")


@pytest.mark.parametrize(
    "document",
    [b"", b" \n", b"<domain type='kvm'><name>a", b"<network/>", b"\0\1", b"<domain/>"],
)
def test_a_document_that_is_none(host, document):
    for fail, code in (("open", 0), ("closed", 1)):
        done = call(host, "a", "start", "begin", "-", document=document, fail=fail)
        assert (done.returncode, done.stdout) == (code, b"")
        assert b"not judged" in done.stderr


def test_entities_are_not_expanded():
    with pytest.raises(ValueError, match="document type"):
        quick.look_at(b"<!DOCTYPE d [<!ENTITY e 'x'>]><domain><name>&e;</name></domain>")


@pytest.mark.parametrize(
    "arguments", [(), ("a",), ("a", "start"), ("a", "defrost", "begin", "-"), ("--help",)]
)
def test_a_call_that_libvirt_does_not_make(host, arguments):
    done = call(host, *arguments, document=guest("a", "s0:c1,c2").encode())
    assert (done.returncode, done.stdout) == (0, b"")


def test_more_arguments_than_today(host):
    arguments = ("a", "release", "end", "from snapshot", "and more")
    assert call(host, *arguments, document=guest("a", "s0:c1,c2").encode()).returncode == 0


@pytest.mark.slow
def test_it_gives_up_in_time(host):
    """The judge hangs, as storage can make it."""
    host.running("other", "s0:c1,c2")
    slow = ("/bin/sh", "-c", "sleep 60")
    document = guest("a", "s0:c1,c2").encode()
    started = time.monotonic()
    done = call(host, "a", "start", "begin", "-", document=document, judge=slow, seconds=0.3)
    assert time.monotonic() - started < 20
    assert done.returncode == 0
    assert b"0.3 seconds" in done.stderr
    done = call(
        host, "a", "start", "begin", "-", document=document, judge=slow, seconds=0.3, fail="closed"
    )
    assert done.returncode == 1


@pytest.mark.slow
def test_a_judge_that_is_gone_or_dies(host):
    host.running("other", "s0:c1,c2")
    document = guest("a", "s0:c1,c2").encode()
    for judge in (("/nonexistent",), ("/bin/sh", "-c", "kill -9 $$"), ("/bin/sh", "-c", "exit 7")):
        done = call(host, "a", "start", "begin", "-", document=document, judge=judge)
        assert done.returncode == 0, judge
        assert b"not judged" in done.stderr


def test_the_verb_itself_is_the_hook():
    assert run("hook", "qemu", "a", "reconnect", "begin", "-", "more").code == 0


# The state.


@pytest.mark.parametrize(
    ("content", "kept"),
    [
        (b"svirt-label hook state 2\nsomething new\n", []),
        (b"\0\xff\xfe", []),
        (b"", []),
        (b"svirt-label hook state 1\nhalf a li", []),
        (
            b"svirt-label hook state 1\n"
            + f"{uuid_of('one')}\t1\t{context('s0:c1,c2')}\tone\nrubbish\n".encode(),
            ["one"],
        ),
    ],
)
def test_a_state_that_cannot_be_read_is_set_aside(host, content, kept):
    host.state.mkdir(parents=True, mode=0o700)
    (host.state / "state").write_bytes(content)
    done = call(host, "a", "start", "begin", "-", document=guest("a", "s0:c8,c9").encode())
    assert done.returncode == 0
    assert sorted(host.noted()) == sorted([*kept, "a"])
    assert (host.state / "state.unreadable").read_bytes() == content


def test_the_state_belongs_to_its_owner_alone(host):
    host.judge(guest("a", "s0:c1,c2"))
    assert stat.S_IMODE(host.state.stat().st_mode) == 0o700
    assert stat.S_IMODE((host.state / "state").stat().st_mode) == 0o600


@pytest.mark.slow
def test_a_folder_that_others_may_write_to_is_not_used(host):
    host.state.mkdir(parents=True)
    host.state.chmod(0o777)
    done = call(host, "a", "start", "begin", "-", document=guest("a", "s0:c8,c9").encode())
    assert done.returncode == 0
    assert list(host.state.iterdir()) == []


# Levels.


@given(st.sets(st.integers(0, 1023), max_size=40), st.booleans())
def test_quick_categories_are_the_library_s(numbers, as_range):
    level = Level(0, numbers)
    text = f"u:r:svirt_t:s0-{level}" if as_range else f"u:r:svirt_t:{level}"
    assert quick.categories(text) == level.categories.mask


@pytest.mark.parametrize(
    "level",
    [
        "s1:c1",
        "s0:c2,c1",
        "s0:c1,c1",
        "s0:c5.c5x",
        "s0:c1024",
        "s0:c01",
        "s0:",
        "s0:c1,",
        "s0:c3.c1",
    ],
)
def test_quick_categories_leave_the_rest_to_the_library(level):
    with pytest.raises((ValueError, IndexError)):
        quick.categories(f"u:r:svirt_t:{level}")


# What a start waits for.

ALLOWED = {
    *("svirtlib", "svirtlib.backends", "svirtlib.backends.journal", "svirtlib.backends.hook"),
    *("svirtlib.backends.hook.quick", "svirtlib.backends.hook.state"),
    *("fcntl", "pyexpat", "pyexpat.errors", "pyexpat.model", "select", "time", "posix"),
}


@pytest.mark.parametrize("phase", ["prepare", "start", "reconnect", "stopped", "release"])
def test_the_quick_look_imports_next_to_nothing(host, phase):
    code = (
        f"import sys; before = set(sys.modules); sys.path.append({str(ROOT)!r}); "
        "from svirtlib.backends.hook import quick; "
        f"settings = quick.Settings(state={str(host.state)!r}, proc={str(host.proc)!r}); "
        f"code = quick._work(['a', {phase!r}, 'begin', '-'], settings); "
        "print(code, *set(sys.modules) - before)"
    )
    done = subprocess.run(
        ["/usr/bin/python3", "-I", "-S", "-c", code],
        input=guest("a", "s0:c1,c2").encode(),
        capture_output=True,
        timeout=60,
        check=True,
    )
    status, *loaded = done.stdout.decode().split()
    assert status == "0"
    assert set(loaded) <= ALLOWED


# The installer.


def test_it_shows_first_then_writes_then_removes(tmp_path):
    root = ("--root", tmp_path)
    path = tmp_path / "etc/libvirt/hooks/qemu.d/50-svirt-label"
    shown = run("hook", "install", *root)
    assert shown.code == 0
    assert str(path) in shown.out
    assert not list(tmp_path.iterdir())
    written = run("hook", "install", *root, "--apply")
    assert "mode 755" in written.out
    assert stat.S_IMODE(path.stat().st_mode) == 0o755
    for line in path.read_text().splitlines():
        assert f"    {line}\n" in shown.out
    assert "nothing to do" in run("hook", "install", *root, "--apply").err
    before = path.read_text()
    assert run("hook", "install", *root, "--fail", "closed", "--apply").code == 0
    assert path.read_text() != before
    assert run("hook", "remove", *root).code == 0
    assert path.exists()
    assert run("hook", "remove", *root, "--apply").code == 0
    assert not path.exists()


@pytest.mark.root
def test_it_has_the_label_of_the_policy(tmp_path, require):
    from svirtlib.backends._selinux import file_context

    wanted = file_context("/etc/libvirt/hooks/qemu.d/50-svirt-label", stat.S_IFREG)
    require(wanted, "no SELinux policy is installed (Debian package selinux-policy-default)")
    run("hook", "install", "--root", tmp_path, "--apply")
    path = tmp_path / "etc/libvirt/hooks/qemu.d/50-svirt-label"
    assert os.getxattr(path, "security.selinux").rstrip(b"\0").decode() == wanted


def test_it_leaves_another_program_s_file_alone(tmp_path):
    path = tmp_path / "etc/libvirt/hooks/qemu.d/50-svirt-label"
    path.parent.mkdir(parents=True)
    path.write_text("#!/bin/sh\n")
    for verb in ("install", "remove"):
        outcome = run("hook", verb, "--root", tmp_path, "--apply")
        assert outcome.code == 4
        assert "did not write it" in outcome.err
    assert path.read_text() == "#!/bin/sh\n"


@pytest.mark.parametrize(
    "options",
    [("--ignore", "label-colision"), ("--ignore", "label-collision="), ("--time-limit", "0")],
)
def test_it_refuses_settings_that_would_fail_later(tmp_path, options):
    assert run("hook", "install", "--root", tmp_path, "--apply", *options).code == 2
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_the_installed_file_runs(tmp_path):
    state = tmp_path / "state" / "hook"
    run("hook", "install", "--root", tmp_path, "--state", state, "--apply", "--time-limit", "20")
    script = tmp_path / "etc/libvirt/hooks/qemu.d/50-svirt-label"
    for phase, name, code in (("start", "a", 0), ("start", "b", 1), ("reconnect", "b", 0)):
        done = subprocess.run(
            [script, name, phase, "begin", "-"],
            input=guest(name, "s0:c1,c2").encode(),
            capture_output=True,
            timeout=60,
        )
        assert (done.returncode, done.stdout) == (code, b""), done.stderr


# vdsm and KubeVirt.


def test_vdsm(tmp_path, monkeypatch):
    path = tmp_path / "domain.xml"
    monkeypatch.setenv("_hook_domxml", str(path))
    path.write_text(guest("a", how="dynamic", live=False))
    assert run("hook", "vdsm").code == 0
    path.write_text("<domain")
    # vdsm goes on after 1, and stops after 2.
    assert run("hook", "vdsm").code == 1
    assert run("hook", "vdsm", "--fail", "closed").code == 2
    path.write_text(guest("a", "s0", how="static", live=False, disks=[disk("/img/a.qcow2")]))
    outcome = run("hook", "vdsm")
    assert outcome.code == 2
    assert "image-exposure" in outcome.err
    assert outcome.out == ""
    monkeypatch.delenv("_hook_domxml")
    assert run("hook", "vdsm").code == 1


def test_kubevirt():
    document = "<domain type='kvm'><name>ns_vm</name><memory>1</memory></domain>\n"
    outcome = run("hook", "kubevirt", "--vmi", "{}", "--domain", document)
    assert (outcome.code, outcome.err) == (0, "")
    vmi = '{"status": {"selinuxContext": "system_u:object_r:container_file_t:s0"}}'
    outcome = run("hook", "kubevirt", "--vmi", vmi, "--domain", document)
    assert outcome.code == 0
    assert "without categories" in outcome.err
    wrong = document.replace("</domain>", "<seclabel type='dynamic' relabel='no'/></domain>")
    outcome = run("hook", "kubevirt", "--domain", wrong)
    assert (outcome.code, outcome.out) == (1, "")
    assert run("hook", "kubevirt", "--domain", "<domain").code == 1

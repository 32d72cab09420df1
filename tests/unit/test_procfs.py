"""Finding the processes of guests: in a made-up /proc, and among real processes."""

from __future__ import annotations

import os
import subprocess

import pytest
from xmlmaker import uuid_of

from svirtlib.backends._procfs import ProcessTable, daemon_range, labelled_processes
from svirtlib.guests import Guest, Process, Unreadable
from svirtlib.inventory import guest_key

LABEL = "system_u:system_r:svirt_t:s0:c1,c2"


def running(name, *, uuid=None, virt_type="kvm", is_running=True):
    return Guest(name, uuid or uuid_of(name), is_running, virt_type, "libvirt")


def command(name, uuid=None, *, more=()):
    """The words with which libvirt starts a guest."""
    return [
        "/usr/bin/qemu-system-x86_64",
        *("-name", f"guest={name},debug-threads=on"),
        "-S",
        *("-uuid", uuid or uuid_of(name)),
        *more,
    ]


@pytest.fixture
def proc(tmp_path):
    """Make processes in a folder that looks like /proc, and return that."""

    class Proc:
        folder = tmp_path / "proc"
        pids = tmp_path / "run"

        def add(self, pid, words, context=LABEL, comm="qemu-system-x86"):
            directory = self.folder / str(pid)
            (directory / "attr").mkdir(parents=True)
            (directory / "cmdline").write_bytes(
                b"".join(os.fsencode(word) + b"\0" for word in words)
            )
            (directory / "comm").write_text(comm + "\n")
            if context is not None:
                (directory / "attr" / "current").write_text(context + "\0")

        def table(self):
            return ProcessTable(proc=str(self.folder), pid_files=str(self.pids))

        def of(self, *guests):
            """The outcome for each of these guests, in their order; and the lost ones."""
            found, lost = self.table().of_guests(guests)
            return [found.get(guest_key(guest)) for guest in guests], lost

    made = Proc()
    made.folder.mkdir()
    made.pids.mkdir()
    # What else is in there.
    (made.folder / "self").symlink_to("1")
    (made.folder / "meminfo").write_text("MemTotal: 1 kB\n")
    made.add(1, ["/sbin/init"], "system_u:system_r:init_t:s0", "systemd")
    made.add(2, [], None, "kthreadd")
    return made


def test_guests_are_found_by_their_uuid(proc):
    proc.add(100, command("a"))
    proc.add(200, command("b"), "system_u:system_r:svirt_t:s0:c3,c4")
    (a, b), lost = proc.of(running("a"), running("b"))
    assert a == Process(100, LABEL, f"{proc.folder}/100/attr/current")
    assert isinstance(b, Process)
    assert (b.pid, b.context) == (200, "system_u:system_r:svirt_t:s0:c3,c4")
    assert lost == []


def test_an_upper_case_uuid_is_the_same(proc):
    proc.add(100, command("a", uuid_of("a").upper()))
    (a,), _ = proc.of(running("a"))
    assert isinstance(a, Process)


def test_guests_that_have_no_process_of_qemu_are_not_looked_for(proc):
    outcomes, lost = proc.of(
        running("off", is_running=False),
        running("container", virt_type="lxc"),
        running("played", virt_type="test"),
    )
    assert (outcomes, lost) == ([None, None, None], [])


def test_a_guest_without_a_process_is_told(proc):
    (a,), _ = proc.of(running("a"))
    assert isinstance(a, Unreadable)
    assert (a.what, a.guest) == ("process of guest a", "a")
    assert "no QEMU process has its UUID" in a.reason


def test_a_context_that_cannot_be_read_is_told(proc):
    proc.add(100, command("a"), context=None)
    (a,), _ = proc.of(running("a"))
    assert isinstance(a, Unreadable)
    assert f"{proc.folder}/100/attr/current: No such file or directory" in a.reason


def test_of_two_claims_that_of_libvirts_pid_file_counts(proc):
    proc.add(100, command("a"), "forged")
    proc.add(200, command("a"))
    (a,), _ = proc.of(running("a"))
    assert isinstance(a, Unreadable)
    assert "several processes claim its UUID" in a.reason
    assert "100, 200" in a.reason

    (proc.pids / "a.pid").write_text("200\n")
    (a,), _ = proc.of(running("a"))
    assert isinstance(a, Process)
    assert a.pid == 200


@pytest.mark.parametrize("content", ["", "junk", "999999", "-1", "1" * 100])
def test_a_pid_file_that_is_wrong_is_not_believed(proc, content):
    proc.add(100, command("a"))
    (proc.pids / "a.pid").write_text(content)
    (a,), _ = proc.of(running("a"))
    assert isinstance(a, Process)
    assert a.pid == 100


def test_a_pid_file_helps_where_the_command_line_is_hidden(proc):
    proc.add(100, [])
    (proc.pids / "a.pid").write_text("100")
    (a,), _ = proc.of(running("a"))
    assert isinstance(a, Process)


@pytest.mark.parametrize("name", ["../a", "..", "x/y"])
def test_a_name_leads_to_no_pid_file_elsewhere(proc, name):
    (proc.pids.parent / "a.pid").write_text("1")
    (found,), _ = proc.of(running(name))
    assert isinstance(found, Unreadable)


def test_a_qemu_that_libvirt_does_not_know_is_found(proc):
    proc.add(100, command("known"))
    proc.add(200, command("forgotten"))
    proc.add(300, ["/usr/bin/qemu-system-x86_64", "-name", "by hand"])
    _, (lost,) = proc.of(running("known"))
    assert (lost.name, lost.uuid, lost.running) == ("forgotten", uuid_of("forgotten"), True)
    assert not lost.known_to_libvirt
    assert lost.process == Process(200, LABEL, f"{proc.folder}/200/attr/current")
    assert lost.source == f"{proc.folder}/200"


def test_a_lost_guest_without_a_readable_context_is_still_told(proc):
    proc.add(200, command("forgotten"), context=None)
    _, (lost,) = proc.of()
    assert (lost.name, lost.process) == ("forgotten", None)


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("web", "web"),
        ("a,,b", "a,b"),
        ("a,,,x=y", "a,"),
        (",,", ","),
        ("über", "über"),
        ("\udcff", "\udcff"),
        ("two words", "two words"),
    ],
)
def test_names_as_qemu_writes_them(proc, written, name):
    proc.add(200, ["qemu", "-name", f"guest={written},debug-threads=on"])
    _, (lost,) = proc.of()
    assert lost.name == name


def test_without_labels_nothing_is_looked_at(proc):
    table = ProcessTable(labelled=False, proc=str(proc.folder), pid_files=str(proc.pids))
    assert table.of_guests([running("a")]) == ({}, ())


def test_without_proc_every_guest_is_told(tmp_path):
    table = ProcessTable(proc=str(tmp_path / "none"))
    found, lost = table.of_guests([running("a")])
    assert [type(outcome) for outcome in found.values()] == [Unreadable]
    assert lost == []


def test_the_range_of_the_daemon(proc):
    if os.geteuid() != 0:
        pytest.skip("needs root: only root's daemons count")
    assert daemon_range(str(proc.folder)) is None
    proc.add(50, ["/usr/sbin/libvirtd"], "system_u:system_r:virtd_t:s0-s0:c0.c1023", "libvirtd")
    assert daemon_range(str(proc.folder)) == "s0-s0:c0.c1023"
    # The daemon for QEMU alone is the one that labels, where there are both.
    proc.add(60, ["virtqemud"], "system_u:system_r:virtqemud_t:s0", "virtqemud")
    assert daemon_range(str(proc.folder)) == "s0"


@pytest.fixture
def start():
    """Start processes that look like guests' and wait for the end of their input."""
    started = []

    def start(words):
        # A shell ignores what follows its script.
        process = subprocess.Popen(
            [words[0], "-c", "echo up; read line", *words[1:]],
            executable="/bin/sh",
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        started.append(process)
        assert process.stdout is not None
        process.stdout.readline()
        return process.pid

    yield start
    for process in started:
        process.communicate()


def test_real_processes(start):
    one, two = (start(command(f"svirt-test-{number},,x")) for number in "12")
    uuids = [uuid_of(f"svirt-test-{number},,x") for number in "12"]
    table = ProcessTable()
    found, lost = table.of_guests([running("any", uuid=uuids[0])])
    (outcome,) = found.values()
    # Where no SELinux runs, the kernel says so in place of a context.
    assert f"/proc/{one}/attr/current" in (
        outcome.source if isinstance(outcome, Process) else outcome.reason
    )
    (other,) = [guest for guest in lost if guest.uuid == uuids[1]]
    assert (other.name, other.source) == ("svirt-test-2,x", f"/proc/{two}")
    assert uuids[0] not in {guest.uuid for guest in lost}


def test_a_process_that_ends_meanwhile_is_no_error(start, monkeypatch):
    real = os.listdir
    monkeypatch.setattr(os, "listdir", lambda path: [*real(path), "999999999"])
    assert ProcessTable()._process("a", 999999999) == Unreadable(
        "process of guest a",
        "its context could not be read from /proc/999999999/attr/current: "
        "No such file or directory",
        "a",
    )
    pid = start(command("svirt-test-here"))
    assert pid in {process.pid for process in ProcessTable()._qemus()}


def test_labels_of_processes_are_those_with_categories_of_their_own(proc):
    container = "system_u:system_r:container_t:s0:c5,c6"
    proc.add(300, ["sleep"], container, "sleep")
    proc.add(40, command("a"))
    # The same container's second process, a clearance, a level without categories, a secmodel
    # without levels, and what is no context at all.
    proc.add(301, ["sleep"], container, "sleep")
    proc.add(50, ["sshd"], "system_u:system_r:sshd_t:s0-s0:c0.c1023", "sshd")
    proc.add(51, ["cron"], "system_u:system_r:crond_t:s0", "cron")
    proc.add(52, ["x"], "docker-default (enforce)", "x")
    proc.add(53, ["x"], "unconfined", "x")
    assert list(labelled_processes(str(proc.folder))) == [
        ("process 40", LABEL),
        ("process 300", container),
    ]


def test_no_proc_has_no_labels(tmp_path):
    assert list(labelled_processes(str(tmp_path / "nowhere"))) == []

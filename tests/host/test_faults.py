"""A libvirt that is down, hangs or refuses: a message, the right exit status, and an end.

What hangs here hangs for ever, so a program that waits for it runs into the time limit of
``subprocess``; nothing is measured.
"""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys

import pytest
from checkrun import check, run
from needs import require_module
from privileges import as_nobody
from sessiondaemon import DeafSocket, defined
from xmlmaker import disk

#: Much longer than any program here takes, even on a busy machine.
FOREVER = 100


@pytest.fixture(autouse=True)
def _libvirt():
    require_module("libvirt", package="python3-libvirt")


def program(*arguments, script="", **settings):
    """Start ``svirt-label``; *script* runs before it, in the same process."""
    code = f"import sys\nfrom svirtlib.cli.main import main\n{script}\nsys.exit(main(sys.argv[1:]))"
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **settings,
    )


def ended(process):
    """Wait for a program; return its exit status, its report and its messages."""
    with process:
        try:
            out, err = process.communicate(timeout=FOREVER)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
    assert "Traceback" not in err
    assert "Fatal Python error" not in err
    return process.returncode, json.loads(out) if out else None, err


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("garbage", "garbage"),
        ("no-such-driver:///system", "no-such-driver:///system"),
        ("qemu:///session?socket=/nonexistent/socket", "start its daemon"),
        ("qemu+unix:///session?socket=/nonexistent/socket", "judge files with --xml"),
        ("qemu+tcp://127.0.0.1:1/system", "could not connect"),
        ("qemu+ext:///session?command=/nonexistent/program", "could not connect"),
        ("test:///nonexistent/host.xml", "could not connect"),
        ("qemu:///\udcff", "not UTF-8"),
    ],
)
def test_what_cannot_be_reached(uri, words):
    outcome = check("--connect", uri)
    assert (outcome.code, outcome.out) == (4, "")
    assert outcome.err.startswith("svirt-label: error: libvirt (")
    assert words in outcome.err


@pytest.mark.parametrize("form", ["qemu:///session?socket=", "qemu+unix:///session?socket="])
def test_what_never_answers(tmp_path, form):
    with DeafSocket(tmp_path) as deaf:
        code, report, err = ended(
            program("check", "--connect", f"{form}{deaf.path}", "--timeout", "0.2")
        )
    assert (code, report) == (4, None)
    assert "did not connect within 0.2 seconds" in err
    assert "raise --timeout" in err


@pytest.mark.usefixtures("heeded")
def test_an_interrupt_ends_the_wait(tmp_path):
    with DeafSocket(tmp_path) as deaf:
        process = program("check", "-c", f"qemu:///session?socket={deaf.path}")
        assert deaf.connected.wait(FOREVER)
        process.send_signal(signal.SIGINT)
        code, report, err = ended(process)
    assert (code, report, err) == (130, None, "svirt-label: error: interrupted\n")


def test_a_daemon_that_hangs_from_the_start(daemon):
    daemon.halt()
    code, report, err = ended(program("check", "-c", daemon.uri, "--timeout", "0.2"))
    assert (code, report) == (4, None)
    assert "within 0.2 seconds" in err


#: Halts the daemon; after that no answer is worth waiting for.
HALT = """
import os, signal
from svirtlib.backends import _libvirt
_libvirt._CLOSING_TIMEOUT = 0.2
class Halting(_libvirt.LibvirtGuests):
    read = 0
    def halt(self):
        os.kill({pid}, signal.SIGSTOP)
        self._timeout = 0.2
    def {method}
_libvirt.LibvirtGuests = Halting
"""
AFTER_THE_LIST = """_ask(self, what, *arguments, **settings):
        answer = super()._ask(what, *arguments, **settings)
        if what == "list its guests":
            self.halt()
        return answer
"""
AMONG_THE_GUESTS = """_describe(self, domain):
        self.read += 1
        if self.read >= 20:
            self.halt()
        return super()._describe(domain)
"""
AFTER_THE_GUESTS = """_guest(self, *arguments):
        self.read += 1
        if self.read == 40:
            self.halt()
        return super()._guest(*arguments)
"""
GUESTS = 40


def halting(daemon, method, *options):
    daemon.define(*(defined(f"g{number:02}", f"s0:c{number}") for number in range(GUESTS)))
    script = HALT.format(pid=daemon.pid, method=method)
    arguments = ["check", "--format", "json", "-c", daemon.uri, "--only", "label-invalid"]
    return ended(program(*arguments, *options, script=script))


def test_a_daemon_that_hangs_before_it_describes_any_guest(daemon):
    code, report, err = halting(daemon, AFTER_THE_LIST)
    assert (code, report) == (4, None)
    # Which of the questions under way is missed first is chance.
    assert re.search("did not (describe a guest|tell [a-z' ]*) within 0.2 seconds", err)


def test_a_daemon_that_hangs_among_the_guests(daemon):
    # The wait for the next answer may have begun before the daemon was halted.
    code, report, err = halting(daemon, AMONG_THE_GUESTS, "--timeout", "2")
    assert (code, err) == (3, "")
    assert not report["complete"]
    unread = [entry["what"] for entry in report["unreadable"]]
    assert 0 < len(unread) < GUESTS
    assert report["guests"] == GUESTS - len(unread)
    assert all(what.startswith("guest g") for what in unread)
    assert "virsh domjobinfo g" in report["unreadable"][0]["reason"]


def test_a_daemon_that_hangs_after_the_last_guest(daemon):
    code, report, err = halting(daemon, AFTER_THE_GUESTS)
    assert (code, err) == (0, "")
    assert report["guests"] == GUESTS


VOLUME = """volume_path(self, image, *, in_use):
        self.halt()
        return super().volume_path(image, in_use=in_use)
"""


def test_a_daemon_that_hangs_at_a_volume(daemon):
    daemon.define(defined("v", disks=[disk("data/x", kind="volume", chain=None)]))
    script = HALT.format(pid=daemon.pid, method=VOLUME)
    arguments = ["check", "--format", "json", "-c", daemon.uri, "--only", "label-invalid"]
    code, report, err = ended(program(*arguments, script=script))
    assert (code, err) == (3, "")
    assert report["guests"] == 1
    assert [entry["what"] for entry in report["unreadable"]] == ["volume data/x"]
    assert "within 0.2 seconds" in report["unreadable"][0]["reason"]


@pytest.mark.root
def test_a_socket_that_refuses(tmp_path):
    check("--connect", "test:///default")  # imports all that a run needs
    tmp_path.chmod(0o700)
    with DeafSocket(tmp_path) as deaf, as_nobody():
        outcome = check("--connect", f"qemu:///session?socket={deaf.path}")
    assert (outcome.code, outcome.out) == (4, "")
    assert "Permission denied" in outcome.err
    assert "run as root or as a member of the group libvirt" in outcome.err


def test_without_the_bindings(monkeypatch):
    monkeypatch.setitem(sys.modules, "libvirt", None)
    outcome = run("check")
    assert (outcome.code, outcome.out) == (4, "")
    assert "install python3-libvirt, or judge files with --xml" in outcome.err

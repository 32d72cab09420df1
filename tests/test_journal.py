"""Every change is told to the journal, with the fields that docs/journal.md promises."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from checkrun import run
from needs import require_module

from svirtlib.backends import journal

ROOT = Path(__file__).resolve().parent.parent
PROMISED = set(re.findall(r"`([A-Z_]{5,})`", (ROOT / "docs" / "journal.md").read_text()))
GIVEN = {"MESSAGE", "MESSAGE_ID", "PRIORITY", "SYSLOG_IDENTIFIER"}


def _only(journald):
    """The one message that was sent, as text."""
    (message,) = journald.told()
    assert set(message) <= PROMISED | GIVEN
    return {name: [value.decode() for value in values] for name, values in message.items()}


def test_a_message_as_journald_reads_it(journald):
    # A line in a name forges no field; what is no UTF-8 stands there as it is.
    sent = journal.tell(
        "one\ntwo", journal.ERR, GUEST="a\nSVIRT_GUEST=b", PATH=["/x", "/\udcff"], UUID=""
    )
    assert sent
    assert journald.told() == [
        {
            "MESSAGE": [b"one\ntwo"],
            "MESSAGE_ID": [journal.NOTE.encode()],
            "PRIORITY": [b"3"],
            "SYSLOG_IDENTIFIER": [b"svirt-label"],
            "SVIRT_GUEST": [b"a\nSVIRT_GUEST=b"],
            "SVIRT_PATH": [b"/x", b"/\xff"],
        }
    ]


def test_a_message_of_any_size_goes_through(journald):
    many = [f"/{number}" + "x" * 5000 for number in range(1000)]
    assert journal.tell("x" * 1_000_000, PATH=many, OTHERS="y" * 1_000_000)
    (message,) = journald.told()
    assert len(message["SVIRT_PATH"]) == 32
    assert len(message["MESSAGE"][0]) == 32768


def test_nobody_listens():
    assert not journal.tell("nothing")
    assert not journal.changed("nothing", "storage apply")


def test_the_kinds_are_the_published_ones():
    text = (ROOT / "docs" / "journal.md").read_text()
    kinds = [journal.CHANGED, journal.STOPPED, journal.UNJUDGED, journal.NOTE]
    assert re.findall(r"^\| `([0-9a-f]{32})`", text, re.MULTILINE) == kinds


def test_what_is_changed_outside_of_the_library_is_told_too(journald, tmp_path):
    """In a process of its own, as people run it: nothing was patched into it."""
    code = (
        "import sys; from svirtlib.backends import journal; journal.SOCKET = sys.argv[1]; "
        "from svirtlib.cli.main import main; sys.exit(main(sys.argv[2:]))"
    )
    words = ["hook", "install", "--root", str(tmp_path), "--apply"]
    subprocess.run(
        [sys.executable, "-c", code, str(journald.path), *words], check=True, capture_output=True
    )
    message = _only(journald)
    assert message["MESSAGE_ID"] == [journal.CHANGED]
    assert message["SVIRT_CHANGE"] == ["create"]


def test_the_hook_s_file(journald, tmp_path):
    words = ["hook", "install", "--root", tmp_path]
    run(*words)
    assert journald.told() == []
    run(*words, "--apply")
    message = _only(journald)
    assert message["SVIRT_VERB"] == ["hook"]
    assert message["SVIRT_PATH"] == [str(tmp_path / "etc/libvirt/hooks/qemu.d/50-svirt-label")]
    run(*words, "--apply")
    assert journald.told() == []
    run("hook", "remove", "--root", tmp_path, "--apply")
    assert _only(journald)["SVIRT_CHANGE"] == ["remove"]


def test_rules_of_consoles(journald, tmp_path):
    from svirtlib.backends import consolefiles

    texts = {"firewall": "# Written by svirt-label console-rules\n"}
    consolefiles.install(texts, str(tmp_path), dry_run=True)
    assert journald.told() == []
    consolefiles.install(texts, str(tmp_path), dry_run=False)
    message = _only(journald)
    assert message["SVIRT_VERB"] == ["console-rules"]
    assert message["SVIRT_CHANGE"] == ["create"]
    assert Path(message["SVIRT_PATH"][0]).is_file()
    consolefiles.remove(str(tmp_path), dry_run=False)
    assert _only(journald)["SVIRT_CHANGE"] == ["remove"]


def test_reservations(journald, tmp_path):
    require_module("sqlalchemy", package="python3-sqlalchemy")
    registry = ["--registry", str(tmp_path / "registry.db")]
    tmp_path.chmod(0o700)
    owner = "5c7b1e0a-0000-4000-8000-000000000001"

    def said(*words):
        assert run(*words, *registry).code == 0
        return _only(journald)

    got = said("allocate", "--no-sync", "--owner", owner, "--name", "web01")
    assert got["SVIRT_VERB"] == ["allocate"]
    assert (got["SVIRT_GUEST"], got["SVIRT_UUID"]) == (["web01"], [owner])
    assert run("allocate", "--no-sync", "--owner", owner, *registry).out == (
        f"{got['SVIRT_LEVEL'][0]}\n"
    )
    assert journald.told() == [], "nothing was changed"
    assert said("release", "--owner", owner)["SVIRT_LEVEL"] == got["SVIRT_LEVEL"]
    assert said("reserve", "s0:c1,c2", "--lease", "1s")["SVIRT_LEVEL"] == ["s0:c1,c2"]
    assert said("sync", "--xml", ROOT / "svirtlib/demo/dumpxml")["PRIORITY"] == ["6"]

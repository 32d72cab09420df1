"""How ``check`` behaves as a command: options, exit statuses, streams, hostile names."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from checkrun import check, run
from xmlmaker import IMAGES, disk, domain, guest, seclabel, uuid_of

from svirtlib.checks import ALL_CHECKS, run_checks
from svirtlib.checks.label_collision import LabelCollision
from svirtlib.cli.commands import COMMANDS
from svirtlib.findings import Severity

COMMAND = [sys.executable, "-m", "svirtlib.cli"]
SEVERITIES = ["critical", "high", "medium", "low", "info"]


def write(folder: Path, *documents: str) -> Path:
    for number, document in enumerate(documents):
        (folder / f"{number:03}.xml").write_text(document, encoding="utf-8")
    return folder


@pytest.fixture
def pair(tmp_path):
    """Two guests with one label: one critical finding."""
    folder = tmp_path / "dumps"
    folder.mkdir()
    return write(folder, guest("a"), guest("b"))


@pytest.fixture
def clean(tmp_path):
    """Two guests that are kept apart."""
    folder = tmp_path / "clean"
    folder.mkdir()
    return write(folder, guest("a"), guest("b", "s0:c3,c4"))


@pytest.fixture
def unknown(tmp_path):
    """A guest whose label is not known, and one low finding."""
    folder = tmp_path / "unknown"
    folder.mkdir()
    return write(folder, domain("a", seclabel()), guest("b", "s0:c4,c3"))


def spawn(*arguments, **options):
    """Run the command in a process of its own."""
    return subprocess.run(
        [*COMMAND, *map(str, arguments)],
        capture_output="stdout" not in options,
        timeout=120,
        **options,
    )


# --- Where options stand ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        ["--format", "json", "check", "--xml", "."],
        ["check", "--format", "json", "--xml", "."],
        ["check", "--xml", ".", "--format=json"],
        ["--format", "table", "check", "--format", "json", "--xml", "."],
        ["-q", "--debug", "--color", "always", "--format", "json", "check", "--xml", "."],
        ["check", "-q", "--debug", "-v", "--color", "never", "--format", "json", "--xml", "."],
        ["--format", "json", "check", "a", "--xml", "."],
        ["--format", "json", "check", "--xml", "000.xml", "--xml", "001.xml"],
        ["--format", "json", "check", "--xml", "001.xml", "000.xml"],
    ],
)
def test_options_stand_before_or_after_the_verb(pair, monkeypatch, arguments):
    monkeypatch.chdir(pair)
    outcome = run(*arguments)
    assert outcome.told == [("label-collision", ["a", "b"], ["a", "b"])]
    assert (outcome.code, outcome.err) == (1, "")


def test_the_file_for_the_result_may_be_named_before_the_verb(pair, tmp_path):
    target = tmp_path / "report.json"
    outcome = run("-o", target, "--format", "json", "check", "--xml", pair)
    assert (outcome.code, outcome.out) == (1, "")
    assert json.loads(target.read_text())["schema"] == "svirt-label/report/1"


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["bogus"],
        ["check", "--bogus"],
        ["check", "--form", "json", "--xml", "."],
        ["check", "--format", "yaml", "--xml", "."],
        ["export", "--format", "table", "--xml", "."],
        ["check", "--color", "sometimes", "--xml", "."],
        ["check", "--fail-on", "bogus", "--xml", "."],
        ["check", "--fail-on", "", "--xml", "."],
        ["check", "--max-subjects", "-1", "--xml", "."],
        ["check", "--max-subjects", "many", "--xml", "."],
        ["check", "--timeout", "0", "--xml", "."],
        ["check", "--timeout", "nan", "--xml", "."],
        ["check", "--xml"],
        ["check", "--xml", ".", "--snapshot", "x"],
        ["check", "-c", "test:///default", "--xml", "."],
        ["check", "-c", "test:///default", "--snapshot", "x"],
        ["check", "--snapshot", "x", "--files"],
        ["check", "--only", "bogus", "--xml", "."],
        ["check", "--ignore", "bogus", "--xml", "."],
        ["check", "--ignore", "bogus=a", "--xml", "."],
        ["check", "--ignore", "label-collision=bogus", "--xml", "."],
        ["check", "--ignore", "label-collision=", "--xml", "."],
        ["check", "bogus", "--xml", "."],
        ["check", "a", "bogus", "--xml", "."],
    ],
)
def test_usage_errors(pair, monkeypatch, arguments):
    """Nothing is judged, nothing stands on standard output, and there is a reason."""
    monkeypatch.chdir(pair)
    outcome = run(*arguments)
    assert (outcome.code, outcome.out) == (2, "")
    assert "error: " in outcome.err
    assert "Traceback" not in outcome.err


def test_a_wrong_rule_or_guest_is_told_with_the_right_one(pair):
    assert "'label-collision'" in run("check", "--only", "label-colision", "--xml", pair).err
    assert "'label-collision'" in run("check", "--ignore", "label-colision", "--xml", pair).err
    write(pair, guest("webserver"))
    assert "'webserver'" in run("check", "web-server", "--xml", pair).err


def test_a_wrong_rule_is_told_before_anything_is_read():
    outcome = run("check", "--only", "bogus", "--xml", "nowhere")
    assert "bogus" in outcome.err
    assert "nowhere" not in outcome.err


# --- Which rules, which guests ----------------------------------------------------------------


@pytest.fixture
def many(tmp_path):
    """A collision, an exposure, a spelling, a shared image."""
    folder = tmp_path / "many"
    folder.mkdir()
    shared = [disk("/srv/x")]
    return write(
        folder,
        guest("a", "s0:c1,c2", disks=shared),
        guest("b", "s0:c2,c1", disks=shared),
        guest("c", "s0:c5"),
        guest("d", "s0:c5,c6"),
        guest("e", "s0:c8,c9"),
    )


ALL = [
    "label-collision",
    "label-exposure",
    "shared-image-undeclared",
    "label-not-canonical",
    "label-not-canonical",
]


def test_the_gravest_come_first(tmp_path):
    """Also where a rule told something less than its usual; then by rule, then by guest."""
    write(
        tmp_path,
        *(guest(name, live=False, disks=[disk("/srv/x")]) for name in "ab"),
        domain("c", seclabel("static", label="nonsense"), live=False),
        *(guest(name, level) for name, level in zip("fedg", ["s0:c7", "s0:c8", "s0:c8", "s0:c7"])),
    )
    outcome = check("--xml", tmp_path, "--ignore", "seclabel-rejected")
    assert [
        (finding["severity"], *entry[:2]) for finding, entry in zip(outcome.findings, outcome.told)
    ] == [
        ("critical", "label-collision", ["d", "e"]),
        ("critical", "label-collision", ["f", "g"]),
        ("high", "label-invalid", ["c"]),
        ("medium", "shared-image-undeclared", ["a", "b"]),
    ]


def test_only(many):
    assert check("--xml", many).rules == ALL
    outcome = check("--xml", many, "--only", "label-exposure")
    assert outcome.told == [("label-exposure", ["d"], ["c"])]
    assert outcome.report["not_run"] == []
    outcome = check(
        "--xml", many, "--only", "label-exposure", "--only=label-collision", "--only=label-invalid"
    )
    assert outcome.rules == ["label-collision", "label-exposure"]
    outcome = check("--xml", many, "--only", "label-invalid")
    assert (outcome.rules, outcome.code) == ([], 0)


def test_only_a_rule_that_the_source_gives_nothing_for(many):
    outcome = check("--xml", many, "--only", "host-not-enforcing")
    assert [entry["rule"] for entry in outcome.report["not_run"]] == ["host-not-enforcing"]
    assert (outcome.rules, outcome.code) == ([], 0)


@pytest.mark.parametrize(
    ("ignore", "gone"),
    [
        (["label-exposure"], [1]),
        (["label-exposure=d"], [1]),
        # The finding is about those that can reach, not about the reached.
        (["label-exposure=c"], []),
        (["label-exposure=e"], []),
        # One of two is not all of them.
        (["label-collision=a"], []),
        (["label-collision=a", "label-collision=b"], [0]),
        (["label-collision=a", "label-collision=b", "label-exposure=d"], [0, 1]),
        (["label-not-canonical"], [3, 4]),
        (["label-not-canonical=b"], [3, 4]),
        (ALL, [0, 1, 2, 3, 4]),
    ],
)
def test_ignore(many, ignore, gone):
    outcome = check("--xml", many, *(f"--ignore={text}" for text in ignore))
    assert outcome.rules == [rule for place, rule in enumerate(ALL) if place not in gone]
    assert outcome.report["ignored"] == len(gone)
    assert outcome.code == (0 if {0, 1, 2} <= set(gone) else 1)


def test_ignore_a_guest_whose_name_has_an_equals_sign(tmp_path):
    write(tmp_path, guest("a=b", "s0:c2,c1"))
    outcome = check("--xml", tmp_path, "--ignore", "label-not-canonical=a=b", "--fail-on", "low")
    assert (outcome.rules, outcome.report["ignored"], outcome.code) == ([], 2, 0)


@pytest.mark.parametrize(
    ("names", "rules"),
    [
        (["a"], ["label-collision", "shared-image-undeclared"]),
        (["b"], [ALL[0], *ALL[2:]]),
        # Reached by somebody is touched as well.
        (["c"], ["label-exposure"]),
        (["d"], ["label-exposure"]),
        (["e"], []),
        (["c", "e"], ["label-exposure"]),
        ([uuid_of("d")], ["label-exposure"]),
        (["a", "c"], ["label-collision", "label-exposure", "shared-image-undeclared"]),
    ],
)
def test_some_guests(many, names, rules):
    """They are compared with all; what touches none of them is left out."""
    outcome = check(*names, "--xml", many)
    assert outcome.rules == rules
    assert outcome.report["guests"] == len(names)
    assert outcome.code == (1 if rules else 0)


def test_what_stays_unknown_of_other_guests(unknown):
    assert (check("a", "--xml", unknown).code, check("b", "--xml", unknown).code) == (3, 0)


def test_a_gap_concerns_each_guest_that_has_it(tmp_path):
    """An image of both is missing: neither was judged in full, and the gap is told once."""
    gone = [disk(str(tmp_path / "gone.img"), readonly=True)]
    write(tmp_path, guest("a", disks=gone), guest("b", "s0:c3,c4", disks=gone))
    (tmp_path / "c.xml").write_text(guest("c", "s0:c9", disks=[]))
    for names, code in ((["a"], 3), (["b"], 3), (["c"], 0), (["a", "b"], 3)):
        assert check(*names, "--xml", tmp_path, "--files").code == code


def test_more_guests_than_a_finding_names(tmp_path, monkeypatch):
    """The one that was asked for is found among the reached, however many they are."""
    monkeypatch.setattr("svirtlib.checks.SUBJECTS", 5)
    monkeypatch.setitem(run_checks.__kwdefaults__, "subjects", 5)
    write(
        tmp_path,
        guest("wide", "s0:c0.c1023"),
        *(guest(f"g{n:02}", f"s0:c{n},c{n + 100}") for n in range(20)),
    )
    few = ["--max-subjects", "5"]
    assert len(check("--xml", tmp_path, *few).one("label-exposure")["reaches"]) == 5
    finding = check("--xml", tmp_path, *few, "g19").one("label-exposure")
    assert (finding["guests"], finding["reaches_count"]) == (["wide"], 20)
    assert len(finding["reaches"]) == 5
    finding = check("--xml", tmp_path, "--max-subjects", "12").one("label-exposure")
    assert (len(finding["reaches"]), finding["reaches_count"]) == (12, 20)


@pytest.mark.parametrize("arguments", [[], ["--xml", "nowhere"], ["-c", "nowhere:///"]])
def test_list_rules_looks_at_nothing(arguments):
    outcome = run("check", "--list-rules", *arguments)
    assert (outcome.code, outcome.err) == (0, "")
    for rule in ALL_CHECKS:
        assert re.search(f"^{rule.ident} +{rule.severity.label} +", outcome.out, re.MULTILINE)
    rows = check("--list-rules", *arguments).report["rules"]
    assert [row["rule"] for row in rows] == [rule.ident for rule in ALL_CHECKS]


# --- The exit status --------------------------------------------------------------------------


@pytest.mark.parametrize("threshold", SEVERITIES)
@pytest.mark.parametrize("severity", Severity)
def test_the_threshold_counts_from_its_severity_on(clean, monkeypatch, severity, threshold):
    """At it and over it are 1; below it is 0, and the finding is told all the same."""
    write(clean, guest("a"), guest("b"))
    monkeypatch.setattr(LabelCollision, "severity", severity)
    outcome = check("--xml", clean, "--fail-on", threshold)
    assert outcome.findings[0]["severity"] == severity.label
    over = SEVERITIES.index(severity.label) <= SEVERITIES.index(threshold)
    assert outcome.code == (1 if over else 0)


def test_medium_is_the_threshold(tmp_path):
    write(tmp_path, guest("a", "s0:c1,c2", how="static", live=False))
    assert check("--xml", tmp_path).code == 0
    write(tmp_path, *(guest(n, "s0:c1,c2", how="static", live=False) for n in "ab"))
    assert check("--xml", tmp_path).code == 1
    assert check("--xml", tmp_path, "--fail-on", "high").code == 0


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ([], 3),
        (["--fail-on", "low"], 1),
        (["--exit-zero"], 3),
        (["--fail-on", "low", "--exit-zero"], 3),
        (["--only", "label-collision"], 3),
        (["--ignore", "label-not-canonical", "--fail-on", "low"], 3),
    ],
)
def test_what_was_not_judged_is_never_zero(unknown, options, code):
    outcome = check("--xml", unknown, *options)
    assert outcome.report["complete"] is False
    assert outcome.code == code


def test_exit_zero(pair):
    outcome = check("--xml", pair, "--exit-zero")
    assert outcome.rules == ["label-collision"]
    assert outcome.code == 0
    assert check("--xml", pair / "nowhere", "--exit-zero").code == 2


@pytest.mark.parametrize("debug", [[], ["--debug"]])
def test_a_bug_is_not_a_finding_and_not_health(pair, monkeypatch, debug):
    def broken(self, facts):
        yield from ()
        raise ZeroDivisionError("boom")

    monkeypatch.setattr(LabelCollision, "run", broken)
    outcome = check("--xml", pair, *debug)
    assert (outcome.code, outcome.out) == (70, "")
    assert "boom" in outcome.err
    assert ("Traceback" in outcome.err) is bool(debug)


def test_a_bug_while_guests_are_read(pair, monkeypatch):
    """Also where the system says no: a permission that we did not expect is none of the user's."""

    def broken(*arguments, **options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("svirtlib.backends.host.read_documents", broken)
    assert check("--xml", pair).code == 70


# --- The sources ------------------------------------------------------------------------------


def test_standard_input(monkeypatch):
    both = f"<node>{guest('a')}{guest('b')}</node>"
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(both.encode())))
    assert check("--xml", "-").told == [("label-collision", ["a", "b"], ["a", "b"])]


@pytest.mark.parametrize(
    "content",
    [
        "",
        "no XML",
        "\0\1\2",
        "<domain",
        "<domain/>",
        "<network><name>default</name></network>",
        "<!DOCTYPE domain [<!ENTITY a 'aaaa'>]><domain><name>&a;</name></domain>",
        "<domain><name>a</name>" + "<x>" * 500 + "</x>" * 500 + "</domain>",
    ],
)
def test_what_is_no_domain_is_refused_alone_and_told_among_others(pair, tmp_path, content):
    bad = tmp_path / "bad.xml"
    bad.write_text(content)
    outcome = check("--xml", bad)
    assert (outcome.code, outcome.out) == (2, "")
    assert "bad.xml" in outcome.err
    outcome = check("--xml", bad, pair, "--exit-zero")
    assert outcome.rules == ["label-collision"]
    if "<network>" not in content and not content.startswith("<domain><name>"):
        assert outcome.code == 3
        assert any("bad.xml" in what for what in outcome.unjudged)


def test_the_order_of_arguments_and_of_hashes_is_irrelevant(many):
    """The same bytes each time, wherever the interpreter puts what into a set."""
    paths = sorted(many.iterdir())
    results = [
        spawn("check", "--format", "json", "--xml", *order, env={**os.environ, **seed}).stdout
        for order, seed in (
            (paths, {"PYTHONHASHSEED": "1"}),
            (paths[::-1], {"PYTHONHASHSEED": "2"}),
        )
    ]
    assert results[0] == results[1]
    assert json.loads(results[0])["findings"]


def test_a_snapshot_is_judged_to_the_same_bytes(many, tmp_path):
    target = tmp_path / "snapshot.json"
    assert run("export", "--xml", many, "-o", target).code == 0
    direct = check("--xml", many)
    assert check("--snapshot", target) == direct
    assert check("--snapshot", target, "d").told == [("label-exposure", ["d"], ["c"])]


@pytest.mark.parametrize("text", ["", "{}", "[]", "null", '{"schema": "svirt-label/snapshot/2"}'])
def test_what_is_no_snapshot(tmp_path, text):
    target = tmp_path / "snapshot.json"
    target.write_text(text)
    outcome = check("--snapshot", target)
    assert (outcome.code, outcome.out) == (2, "")
    assert "snapshot.json" in outcome.err


# --- The file for the result ------------------------------------------------------------------


def listing(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_a_new_file_is_for_its_owner(pair, tmp_path):
    target = tmp_path / "report"
    assert run("check", "--xml", pair, "-o", target).code == 1
    assert "label-collision" in target.read_text()
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    assert listing(tmp_path) == {"dumps", "report"}


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o600])
def test_an_old_file_keeps_its_mode(pair, tmp_path, mode):
    target = tmp_path / "report"
    target.write_text("old")
    target.chmod(mode)
    assert run("check", "--xml", pair, "-o", target).code == 1
    assert "label-collision" in target.read_text()
    assert stat.S_IMODE(target.stat().st_mode) == mode
    assert listing(tmp_path) == {"dumps", "report"}


def test_a_link_to_a_file_stays_one(pair, tmp_path):
    target = tmp_path / "report"
    target.write_text("old")
    link = tmp_path / "link"
    link.symlink_to("report")
    assert run("check", "--xml", pair, "-o", link).code == 1
    assert link.is_symlink()
    assert "label-collision" in target.read_text()


@pytest.mark.parametrize("where", ["nowhere/report", "dumps", "dumps/000.xml/report"])
def test_a_file_that_cannot_be_written(pair, tmp_path, where):
    before = listing(tmp_path), listing(pair)
    outcome = run("check", "--xml", pair, "-o", tmp_path / where)
    assert (outcome.code, outcome.out) == (4, "")
    assert where in outcome.err
    assert (listing(tmp_path), listing(pair)) == before


def test_the_old_file_stays_where_the_new_one_fails(pair, tmp_path, monkeypatch):
    target = tmp_path / "report"
    target.write_text("old")

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    assert run("check", "--xml", pair, "-o", target).code == 4
    assert target.read_text() == "old"
    assert listing(tmp_path) == {"dumps", "report"}


def test_the_old_file_stays_where_there_is_no_result(tmp_path):
    target = tmp_path / "report"
    target.write_text("old")
    assert run("check", "--xml", tmp_path / "nowhere", "-o", target).code == 2
    assert target.read_text() == "old"


def test_a_dash_is_standard_output(pair):
    assert check("--xml", pair, "-o", "-") == check("--xml", pair)


# --- Colour -----------------------------------------------------------------------------------


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(
    ("terminal", "variables", "options", "coloured"),
    [
        (True, {}, [], True),
        (True, {"NO_COLOR": "1"}, [], False),
        (True, {"NO_COLOR": ""}, [], True),
        (True, {"TERM": "dumb"}, [], False),
        (True, {}, ["--color", "never"], False),
        (True, {"NO_COLOR": "1"}, ["--color", "always"], True),
        (False, {}, [], False),
        (False, {"FORCE_COLOR": "1", "CLICOLOR_FORCE": "1", "TTY_COMPATIBLE": "1"}, [], False),
        (False, {}, ["--color", "always"], True),
        (False, {"NO_COLOR": "1"}, ["--color", "always"], True),
    ],
)
def test_colour(pair, monkeypatch, terminal, variables, options, coloured):
    for name in ("NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    stream = Terminal() if terminal else io.StringIO()
    monkeypatch.setattr(sys, "stdout", stream)
    from svirtlib.cli.main import main

    assert main(["check", "--xml", str(pair), *options]) == 1
    assert ("\x1b[" in stream.getvalue()) is coloured
    plain = re.sub(r"\x1b\[[0-9;]*m", "", stream.getvalue())
    assert "\x1b" not in plain
    assert "label-collision" in plain


def test_a_file_is_not_coloured_by_a_terminal_beside_it(pair, tmp_path, monkeypatch):
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setattr(sys, "stdout", Terminal())
    from svirtlib.cli.main import main

    assert main(["check", "--xml", str(pair), "-o", str(tmp_path / "report")]) == 1
    assert "\x1b" not in (tmp_path / "report").read_text()


# --- Streams that end, signals ----------------------------------------------------------------


@pytest.fixture
def gone():
    """The writing end of a pipe that nobody reads any more."""
    reader, writer = os.pipe()
    os.close(reader)
    yield writer
    os.close(writer)


@pytest.mark.parametrize("kind", ["table", "json"])
def test_nobody_reads_the_result(many, gone, kind):
    """As with "| head -1": no complaint, and the status tells what was found."""
    done = spawn("check", "--xml", many, "--format", kind, stdout=gone, stderr=subprocess.PIPE)
    assert (done.returncode, done.stderr) == (1, b"")


def test_nobody_reads_a_long_result(tmp_path, gone):
    """Longer than what a pipe and the program's buffers hold."""
    write(tmp_path, *(guest(f"{n:03}" + "x" * 2000, f"s0:c{n // 2}") for n in range(60)))
    done = spawn("check", "--xml", tmp_path, stdout=gone, stderr=subprocess.PIPE)
    assert (done.returncode, done.stderr) == (1, b"")


def test_nobody_reads_the_help(gone):
    done = spawn("check", "--help", stdout=gone, stderr=subprocess.PIPE)
    assert (done.returncode, done.stderr) == (0, b"")


def spawn_without(stream, *arguments):
    """Run the command with a standard stream closed, not only led to nowhere."""
    script = f'exec "$@" {stream}>&-'
    return subprocess.run(
        ["/bin/sh", "-c", script, "sh", *COMMAND, *map(str, arguments)],
        capture_output=True,
        timeout=120,
    )


def test_standard_output_is_closed(pair):
    done = spawn_without(1, "check", "--xml", pair)
    assert done.returncode == 4
    assert done.stderr.count(b"\n") == 1


@pytest.mark.parametrize("arguments", [["check", "--xml", "nowhere"], ["check", "--bogus"]])
def test_standard_error_is_closed(arguments):
    """What nobody can be told is not taken for findings."""
    assert spawn_without(2, *arguments).returncode == 2


@pytest.mark.parametrize("arguments", [["--help"], ["--format", "json", "--list-rules"]])
def test_standard_output_is_full(require, arguments):
    require(os.path.exists("/dev/full"), "no /dev/full")
    with open("/dev/full", "wb") as full:
        done = spawn("check", *arguments, stdout=full, stderr=subprocess.PIPE)
    assert done.returncode == 4
    assert done.stderr.count(b"\n") == 1


@pytest.mark.parametrize("arguments", [["check", "--xml", "nowhere"], ["check", "--bogus"]])
def test_standard_error_is_full(require, arguments):
    require(os.path.exists("/dev/full"), "no /dev/full")
    with open("/dev/full", "wb") as full:
        done = spawn(*arguments, stdout=subprocess.DEVNULL, stderr=full)
    assert done.returncode == 2


@pytest.mark.usefixtures("heeded")
def test_ctrl_c(tmp_path):
    """While it waits for a document that does not come."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    # Also a writer, so that its reader waits.
    held = os.open(fifo, os.O_RDWR)
    process = subprocess.Popen(
        [*COMMAND, "check", "--xml", str(fifo)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    # A signal that comes just before the reading call does not wake it.
    while process.poll() is None and not (
        str(fifo) in open_files(process.pid) and sleeps(process.pid)
    ):
        os.sched_yield()
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=120)
    os.close(held)
    assert (process.returncode, out) == (130, b"")
    assert err == b"svirt-label: error: interrupted\n"


def open_files(pid):
    """The paths that a process has open."""
    paths = set()
    folder = f"/proc/{pid}/fd"
    for name in os.listdir(folder):
        with contextlib.suppress(FileNotFoundError):
            paths.add(os.readlink(f"{folder}/{name}"))
    return paths


def sleeps(pid):
    """Whether a process waits for something."""
    status = Path(f"/proc/{pid}/stat").read_text()
    return status.rpartition(") ")[2].startswith("S")


def test_an_interrupt_anywhere(pair, monkeypatch, tmp_path):
    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    target = tmp_path / "report"
    target.write_text("old")
    monkeypatch.setattr("svirtlib.checks.run_checks", interrupted)
    outcome = check("--xml", pair, "-o", target)
    assert (outcome.code, outcome.out) == (130, "")
    assert "Traceback" not in outcome.err
    assert target.read_text() == "old"


# --- Hostile names ----------------------------------------------------------------------------

NAMES = [
    "[red]x[/red]",
    "[/]",
    "[link=http://example.org]x[/link]",
    ":smile:",
    "a\nCRITICAL forged",
    "a\r\nCRITICAL forged",
    "tab\there",
    "right\u202eto left",
    "next\x85line",
    "line\u2028separator",
    "zero\u200bwidth",
    "private\ue000use",
    "\u00fcml\u00e4ut \u65e5\u672c \U0001f600",
    "'; touch /tmp/x; '",
    "$(touch /tmp/x)",
    "-rf",
    "--xml",
    "a=b,c",
    " leading and trailing ",
    "../../etc/passwd",
    "%s {0} %(x)s",
]


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_data_in_json_and_in_arguments(tmp_path, name):
    write(tmp_path, guest(name), guest("b"))
    outcome = check("--xml", tmp_path, f"--ignore=label-collision={name}", "--", name)
    assert outcome.told == [("label-collision", sorted([name, "b"]), sorted([name, "b"]))]
    assert outcome.out.isascii()
    assert outcome.code == 1


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_text_in_the_table(tmp_path, name):
    """It forges no line, gives the terminal no order and is no markup."""
    write(tmp_path, guest(name), guest("b"), domain(f"not judged {name}", seclabel()))
    outcome = run("check", "--xml", tmp_path, "--color", "always", "-v")
    assert (outcome.code, outcome.err) == (1, "")
    text = re.sub(r"\x1b\[[0-9;]*m", "", outcome.out)
    assert all(character.isprintable() or character == "\n" for character in text)
    assert not re.search("^ *CRITICAL forged", text, re.MULTILINE)
    if name.isprintable():
        assert name.split()[0] in text


def test_hostile_labels_and_paths(tmp_path):
    label = "system_u:system_r:svirt_t:s0\nCRITICAL forged"
    write(
        tmp_path,
        domain("a", seclabel("static", label=label), live=False),
        guest("b", disks=[disk("/srv/\u202ex [red]\nCRITICAL forged")]),
        guest("c", "s0:c3,c4", disks=[disk("/srv/\u202ex [red]\nCRITICAL forged")]),
    )
    outcome = run("check", "--xml", tmp_path, "-v")
    assert outcome.code == 1
    assert "[red]" in outcome.out
    assert all(character.isprintable() or character == "\n" for character in outcome.out)
    assert not re.search("^ *CRITICAL forged", outcome.out, re.MULTILINE)


def test_hostile_names_in_errors(tmp_path):
    outcome = run("check", "--xml", tmp_path / "no\nsuch \x1b[31mfile")
    assert outcome.code == 2
    assert outcome.err.count("\n") == 1
    assert "\x1b" not in outcome.err
    outcome = run("check", "--xml", tmp_path, "--only", "no\nsuch \x1b[31mrule")
    assert outcome.err.count("\n") == 1
    assert "\x1b" not in outcome.err


def test_very_long_names(tmp_path):
    """Of guests, of disks, of labels; and many of them in one finding."""
    long = "x" * 20_000
    documents = [
        guest(f"{long}{n}", "s0:c1,c2", disks=[disk(f"{IMAGES}/{long}", readonly=True)])
        for n in range(20)
    ]
    documents.append(domain("bad", seclabel("static", label=long), live=False))
    write(tmp_path, *documents)
    outcome = run("check", "--xml", tmp_path)
    assert outcome.code == 1
    assert len(outcome.out) < 1_000_000
    assert check("--xml", tmp_path).one("label-collision")["guests"][0] == f"{long}0"


ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


@pytest.mark.parametrize("kind", ["table", "json"])
@pytest.mark.parametrize("variables", [ASCII, {**ASCII, "PYTHONIOENCODING": "latin-1"}])
def test_a_terminal_that_knows_few_characters(tmp_path, kind, variables):
    write(tmp_path, guest("\u00fc\u65e5"), guest("b"))
    # A name that is no text in any encoding of ours.
    with open(os.fsencode(tmp_path) + b"/\xff\xe9.xml", "wb") as stream:
        stream.write(guest("c", "s0:c9").encode())
    done = spawn(
        "check", "--xml", tmp_path, "--format", kind, "-v", env={**os.environ, **variables}
    )
    assert (done.returncode, done.stderr) == (1, b"")
    text = done.stdout.decode("latin-1" if len(variables) > 3 else "ascii")
    assert "\\u65e5" in text
    assert "?" not in text


def test_a_file_whose_name_is_no_text(tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "500")  # no line break inside the name
    with open(os.fsencode(tmp_path) + b"/\xff\n.xml", "wb") as stream:
        stream.write(b"<domain>")
    write(tmp_path, guest("a", "s0:c2,c1"))
    outcome = check("--xml", tmp_path)
    assert outcome.code == 3
    assert outcome.unjudged[0].endswith("/\udcff\n.xml:1")
    assert "/\\udcff\\n.xml" in run("check", "--xml", tmp_path).out
    target = tmp_path / "report"
    assert run("check", "--xml", tmp_path, "--format", "json", "-o", target).code == 3
    assert json.loads(target.read_text()) == outcome.report


# --- Help -------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["", *COMMANDS])
def test_help_fits_a_terminal(verb, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    outcome = run(*filter(None, [verb]), "--help")
    assert (outcome.code, outcome.err) == (0, "")
    assert max(map(len, outcome.out.splitlines())) <= 80
    assert outcome.out.startswith(f"usage: svirt-label {verb}".rstrip())
    assert "exit status:" in outcome.out


def test_help_of_check_tells_every_option():
    text = run("check", "--help").out
    options = """
        --xml --snapshot --files --no-files --processes --no-processes --timeout --fail-on --only
        --ignore --max-subjects --exit-zero --list-rules --connect --format --output --color
        --quiet --verbose --debug
    """
    for option in options.split():
        assert re.search(rf"(^|[ ,]){option}\b", text, re.MULTILINE), option


def test_version():
    outcome = run("--version")
    assert (outcome.code, outcome.err) == (0, "")
    assert re.fullmatch(r"svirt-label \d+\.\d+\S*\n", outcome.out)

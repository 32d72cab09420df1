"""The units of systemd: systemd itself takes them, and what they call exists."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from needs import require_program

from svirtlib.cli.parser import make_parser

ROOT = Path(__file__).resolve().parent.parent
UNITS = sorted((ROOT / "packaging" / "systemd").iterdir())


def test_systemd_takes_them(tmp_path):
    analyze = require_program("systemd-analyze", package="systemd")
    for unit in UNITS:
        # What is installed there on a user's machine is not on this one.
        text = unit.read_text().replace("/usr/bin/svirt-label", sys.executable)
        (tmp_path / unit.name).write_text(text)
    names = [str(tmp_path / unit.name) for unit in UNITS]
    done = subprocess.run(
        [analyze, "verify", "--man=no", *names], capture_output=True, text=True, timeout=120
    )
    # It looks at the machine's other units too.
    told = [line for line in done.stderr.splitlines() if "svirt" in line]
    assert (done.returncode, told) == (0, []), done.stderr


@pytest.mark.parametrize("unit", [unit for unit in UNITS if unit.suffix == ".service"])
def test_what_they_call_parses(unit):
    (line,) = [line for line in unit.read_text().splitlines() if line.startswith("ExecStart=")]
    program, *words = shlex.split(line.partition("=")[2])
    assert program == "/usr/bin/svirt-label"
    words = [word for word in words if word != "$SVIRT_CHECK_OPTIONS"]
    assert make_parser().parse_args(words).verb == "check"


def test_each_timer_has_its_service():
    names = {unit.name for unit in UNITS}
    assert {name.replace(".timer", ".service") for name in names} <= names

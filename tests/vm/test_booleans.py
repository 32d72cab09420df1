"""``audit --apply-booleans`` where a kernel enforces: states now and after the next boot."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.vm

SERIAL = b"""
<domain type='kvm'><name>web</name><devices>
  <serial type='dev'><source path='/dev/ttyS0'/></serial>
</devices></domain>
"""


def states(machine):
    """The boolean in the kernel, and as the next boot will have it."""
    live = machine.run("getsebool", "virt_use_comm").out.split()[-1]
    lines = machine.run("semanage boolean -l").out.splitlines()
    (line,) = (line for line in lines if line.startswith("virt_use_comm "))
    return live, line.split("(")[1].split(")")[0].replace(" ", "").split(",")[1]


def audit(machine, *words, code=0):
    line = ("/opt/svirt/bin/svirt-label", "--format", "json", "audit", "--root", "/", "--xml", "-")
    return machine.run(*line, *words, code=code, stdin=SERIAL).json


def test_now_and_after_the_next_boot(machine):
    assert states(machine) == ("off", "off")
    audit(machine, "--apply-booleans", "plan", "--exit-code", code=1)
    audit(machine, "--apply-booleans", "apply")
    assert states(machine) == ("on", "on")
    assert audit(machine, "--apply-booleans", "apply")["changed"] == {}

    # Changed in the kernel alone, the report and the plan tell of it, and undo mends that too.
    machine.run("setsebool virt_use_comm off")
    assert states(machine) == ("off", "on")
    # The machine has no firewall to look at, so that a report is incomplete.
    report = audit(machine, "--only", "selinux-boolean-missing", code=None)
    assert [one["rule"] for one in report["findings"]] == ["selinux-boolean-missing"]
    audit(machine, "--apply-booleans", "apply")
    assert states(machine) == ("on", "on")

    machine.label("audit", "--apply-booleans", "undo")
    assert states(machine) == ("off", "on")
    machine.label("audit", "--apply-booleans", "undo")
    assert states(machine) == ("off", "off")

    machine.run("setsebool virt_use_comm on")
    report = audit(machine, "--only", "selinux-boolean-not-persistent", code=None)
    (finding,) = report["findings"]
    assert finding["guests"] == ["web"]

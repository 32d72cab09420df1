"""The examples of docs/library.md, of the package and of svirtlib.testing are true."""

from __future__ import annotations

import doctest
from pathlib import Path

import svirtlib
from svirtlib import testing
from svirtlib.backends.host import read_documents
from svirtlib.checks import run_checks
from svirtlib.inventory import take_inventory

ROOT = Path(__file__).resolve().parent.parent
FLAGS = doctest.IGNORE_EXCEPTION_DETAIL | doctest.ELLIPSIS


def test_the_page(monkeypatch):
    monkeypatch.chdir(ROOT)
    # Of a fenced block the last line would be taken for output.
    text = (ROOT / "docs" / "library.md").read_text().replace("```", "")
    parser = doctest.DocTestParser()
    examples = parser.get_doctest(text.replace("pycon\n", "\n"), {}, "library.md", None, 0)
    assert len(examples.examples) > 15
    results = doctest.DocTestRunner(optionflags=FLAGS).run(examples)
    assert results.failed == 0


def test_the_modules():
    for module in (svirtlib, testing):
        results = doctest.testmod(module, optionflags=FLAGS)
        assert results.attempted
        assert results.failed == 0


def test_every_name_of_the_package_is_there():
    for name in svirtlib.__all__:
        assert getattr(svirtlib, name).__name__ == name
    assert set(svirtlib.__all__) <= set(dir(svirtlib))


def test_a_fake_host_is_judged_like_a_real_one():
    path = "/img/a.qcow2"
    a = testing.running_guest("a", "s0:c1,c2", images=[path])
    b = testing.running_guest("b", "s0:c3,c4")
    right = {"a": "system_u:system_r:svirt_t:s0:c1,c2", "b": "system_u:system_r:svirt_t:s0:c3,c4"}
    files = testing.FakeFiles({path: "system_u:object_r:svirt_image_t:s0:c1,c2"})

    def rules(processes, guests=(a, b)):
        inventory = take_inventory(
            testing.FakeGuests.enforcing(guests),
            processes=testing.FakeProcesses(processes),
            files=files,
        )
        report = run_checks(inventory)
        return {finding.rule for finding in report.findings}, report.complete

    assert rules(right) == (set(), True)
    drifted = {**right, "b": right["a"]}
    assert rules(drifted) == ({"label-collision", "process-label-drift"}, True)
    assert rules({"a": right["a"]})[1] is False
    twins = [testing.defined_guest(name, "s0:c5,c6") for name in "cd"]
    assert rules(right, [a, b, *twins])[0] == {"static-label-reuse"}


def test_the_demo_is_the_page_s(monkeypatch):
    monkeypatch.chdir(ROOT)
    assert read_documents(["svirtlib/demo/dumpxml"]).guests

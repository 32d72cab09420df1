"""tools/setup installs what the tests would skip for."""

from __future__ import annotations

import re
from pathlib import Path

TESTS = Path(__file__).resolve().parent
# What a Debian machine with a checkout has.
GIVEN = {"bash", "git", "make", "mount", "util-linux"}


def test_packages_that_tests_need_are_installed():
    needed = set()
    for path in TESTS.rglob("*.py"):
        needed |= set(re.findall(r'\bpackage="([a-z0-9.+-]+)"', path.read_text()))
    installed = set(re.findall(r"[a-z0-9.+-]+", (TESTS.parent / "tools" / "setup").read_text()))
    assert needed - GIVEN - installed == set()

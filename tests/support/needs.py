"""What tests need of the machine they run on; where it is missing, they skip and say so.

    from needs import require, require_program

    require(os.geteuid() == 0, "only the superuser may set security.* attributes")
    secilc = require_program("secilc", package="secilc")
    selinux = require_module("selinux", package="python3-selinux")

All may also stand at the top of a test module, which then skips as a whole. With
SVIRT_TEST_STRICT=1 each skip is a failure (conftest.py).
"""

from __future__ import annotations

import importlib
import shutil
from types import ModuleType
from typing import NoReturn

import pytest


def skip(reason: str) -> NoReturn:
    __tracebackhide__ = True  # so that pytest names the line of the test
    pytest.skip(reason, allow_module_level=True)


def require(condition: object, reason: str) -> None:
    """Go on only if *condition* holds; *reason* completes "skipped: ..."."""
    __tracebackhide__ = True
    if not condition:
        skip(reason)


def require_program(name: str, package: str) -> str:
    """Return the path of a program that the Debian package *package* has."""
    __tracebackhide__ = True
    # Daemons live where an ordinary user's PATH does not lead.
    path = shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin")
    if path is None:
        skip(f"no program {name} (Debian package {package})")
    return path


def require_module(name: str, package: str) -> ModuleType:
    """Import and return a module that the Debian package *package* has."""
    __tracebackhide__ = True
    try:
        return importlib.import_module(name)
    except ImportError as error:
        skip(f"no Python module {name} (Debian package {package}): {error}")

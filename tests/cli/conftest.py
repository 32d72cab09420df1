"""What the tests of several verbs start from."""

from __future__ import annotations

from pathlib import Path

import pytest
from hosttree import HostTree


@pytest.fixture
def tree(tmp_path: Path) -> HostTree:
    """An unpacked host without faults, to put some in."""
    return HostTree(tmp_path / "host")

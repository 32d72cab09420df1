"""A private root with Debian's policy for each test that asks for one."""

from __future__ import annotations

from pathlib import Path

import pytest
from policyroot import Root, make_template


@pytest.fixture(scope="session")
def _small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_template(tmp_path_factory.mktemp("policy"), small=True)


@pytest.fixture(scope="session")
def _full(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_template(tmp_path_factory.mktemp("policy"), small=False)


@pytest.fixture
def root(tmp_path: Path, _small: Path) -> Root:
    """A root with a real policy of few file contexts: fast."""
    return Root(tmp_path, _small)


@pytest.fixture
def full_root(tmp_path: Path, _full: Path) -> Root:
    """A root with all of Debian's file contexts."""
    return Root(tmp_path, _full)

"""One real libvirtd for all tests here, emptied after each."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sessiondaemon import SessionDaemon


@pytest.fixture(scope="session")
def _daemon() -> Iterator[SessionDaemon]:
    with SessionDaemon() as daemon:
        yield daemon


@pytest.fixture
def daemon(_daemon: SessionDaemon) -> Iterator[SessionDaemon]:
    """A libvirtd without guests."""
    yield _daemon
    _daemon.resume()
    _daemon.clear()

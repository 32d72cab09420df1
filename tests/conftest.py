"""How the tests run: what skips, when a skip is a failure, how hard hypothesis tries."""

from __future__ import annotations

import os
import signal

import hypothesis
import pytest
from journald import Journald
from needs import require as _require

from svirtlib.backends import journal

STRICT = os.environ.get("SVIRT_TEST_STRICT") == "1"
HYPOTHESIS_PROFILE = os.environ.get("SVIRT_HYPOTHESIS", "fast")

# Examples are random, so that every run looks at new ones, but not where a change is judged:
# it must not be refused for what it did not touch. What fails is printed as a blob that
# repeats it anywhere. No deadline and no complaint about slowness: the tests share
# their machine.
FAST = hypothesis.settings(
    max_examples=40,
    deadline=None,
    derandomize="CI" in os.environ,
    print_blob=True,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.register_profile("fast", FAST)
hypothesis.settings.register_profile("slow", FAST, max_examples=500)
hypothesis.settings.load_profile(HYPOTHESIS_PROFILE)


@pytest.fixture
def require():
    """Skip the test, with a reason, unless a condition holds (see support/needs.py)."""
    return _require


@pytest.fixture(autouse=True, scope="session")
def _no_journal(tmp_path_factory):
    """Keep what tests do out of this machine's journal."""
    nowhere = tmp_path_factory.mktemp("journal")
    journal.SOCKET, journal.LOG = str(nowhere / "socket"), str(nowhere / "log")


@pytest.fixture
def heeded():
    """Interrupts are heeded, by programs that are started, too.

    Started from a shell's background they are not.
    """
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def journald(tmp_path_factory, monkeypatch):
    """What listens where svirt-label tells the journal of its changes."""
    listener = Journald(tmp_path_factory.mktemp("journald"))
    monkeypatch.setattr(journal, "SOCKET", str(listener.path))
    yield listener
    listener.close()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Under the slow profile every hypothesis test is a slow one, so that it runs at all."""
    if HYPOTHESIS_PROFILE == "slow":
        for item in items:
            if getattr(getattr(item, "obj", None), "is_hypothesis_test", False):
                item.add_marker(pytest.mark.slow)


def pytest_runtest_setup(item):
    if item.get_closest_marker("root"):
        _require(os.geteuid() == 0, "needs root")


def _refuse_skip(report):
    """Turn a skip into a failure: under SVIRT_TEST_STRICT everything must really run."""
    if STRICT and report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"skipped, and SVIRT_TEST_STRICT=1 allows no skip: {reason}"


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport():
    _refuse_skip((yield).get_result())


@pytest.hookimpl(hookwrapper=True)
def pytest_make_collect_report():
    _refuse_skip((yield).get_result())

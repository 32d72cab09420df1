"""The registry in PostgreSQL: many clients at once, a server that goes away, clients that die."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import uuid

import psycopg
import pytest
from postgresql import Server

from svirtlib.backends import store
from svirtlib.errors import (
    AllocationError,
    BackendDataError,
    BackendUnavailableError,
    CategoriesExhaustedError,
)
from svirtlib.mls import Level
from svirtlib.registry import Observation, Wish

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server():
    with Server() as server:
        yield server


@pytest.fixture
def open_registry(server):
    """Opens registries of a domain that only this test has."""
    name = uuid.uuid4().hex
    opened = []

    def open_it(host="here", domain=name):
        registry = store.open_registry(server.url, domain=domain, host=host)
        opened.append(registry)
        return registry

    yield open_it
    for registry in opened:
        registry.close()


def _start(code, *arguments):
    command = [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def _finish(process):
    out, _ = process.communicate()
    assert process.returncode == 0
    return out.splitlines()


ALLOCATE = """
    import sys
    from svirtlib.backends.store import open_registry
    from svirtlib.errors import CategoriesExhaustedError
    from svirtlib.registry import Wish

    url, domain, size, last, turns, count = sys.argv[1:]
    registry = open_registry(url, domain=domain)
    print("ready", flush=True)
    sys.stdin.readline()
    for turn in range(int(turns)):
        try:
            for entry in registry.allocate(Wish(int(size), 0, int(last)), int(count)):
                print(entry.level)
        except CategoriesExhaustedError:
            break
"""


def _race(server, domain, workers):
    """Start all at once, when each has its connection; return what each was given."""
    processes = [_start(ALLOCATE, server.url, domain, *arguments) for arguments in workers]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        process.stdin.write("\n")
        process.stdin.flush()
    return [_finish(process) for process in processes]


def test_clients_of_several_processes_fill_a_range_exactly(server, open_registry):
    """Eight race for the last of 300 pairs: each pair is given once, and none is left over."""
    registry = open_registry()
    given = _race(server, registry.domain, [(2, 24, 300, 1)] * 6 + [(2, 24, 300, 7)] * 2)
    levels = [level for taken in given for level in taken]
    assert len(levels) == len(set(levels))
    # Who asks for seven at once gets none of the last six.
    assert 300 - 6 <= len(levels) <= 300
    assert {str(entry.level) for entry in registry.reservations()} == set(levels)
    assert sum(map(bool, given)) > 1


def test_clients_that_want_levels_of_several_sizes_get_incomparable_ones(server, open_registry):
    registry = open_registry()
    given = _race(server, registry.domain, [(size, 19, 12, 2) for size in (1, 2, 2, 3, 4)])
    levels = [Level.parse(level) for taken in given for level in taken]
    assert levels
    for number, level in enumerate(levels):
        assert all(level.incomparable_with(other) for other in levels[:number])


def test_one_owner_that_asks_from_everywhere_gets_one_level(server, open_registry):
    code = """
        import sys
        from svirtlib.backends.store import open_registry
        from svirtlib.registry import Wish

        registry = open_registry(sys.argv[1], domain=sys.argv[2])
        print("ready", flush=True)
        sys.stdin.readline()
        print(registry.allocate(Wish(), owner="guest")[0].level)
    """
    registry = open_registry()
    processes = [_start(code, server.url, registry.domain) for _ in range(6)]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        process.stdin.write("\n")
        process.stdin.flush()
    levels = {line for process in processes for line in _finish(process)}
    assert levels == {str(entry.level) for entry in registry.reservations()}
    assert len(levels) == 1


def test_a_client_killed_between_request_and_answer(server, open_registry):
    """What it was given stays, and who asks for the same owner is told."""
    code = """
        import sys
        from sqlalchemy import event
        from svirtlib.backends import store
        from svirtlib.registry import Wish

        registry = store.open_registry(sys.argv[1], domain=sys.argv[2])
        if sys.argv[3] == "before":
            event.listen(registry._engine, "commit", lambda _: wait())

        def wait():
            print("now", flush=True)
            sys.stdin.readline()

        registry.allocate(Wish(), owner="guest")
        wait()
    """
    registry = open_registry()
    for moment, held in (("before", 0), ("after", 1)):
        process = _start(code, server.url, registry.domain, moment)
        assert process.stdout.readline() == "now\n"
        process.kill()
        process.communicate()
        # Whoever asks now waits for no lock of the dead.
        other = open_registry(host="there")
        assert other.collect(None, grace=0) == []
        assert len(other.reservations()) == held
    [before] = registry.reservations()
    assert registry.allocate(Wish(), owner="guest")[0].level == before.level


@pytest.mark.parametrize("mode", ["fast", "immediate"])
def test_a_server_that_restarts_loses_nothing(server, open_registry, mode):
    registry, watcher = open_registry(), open_registry(host="there")
    given = [entry.level for entry in registry.allocate(Wish(), 20)]
    server.restart(mode)
    # The connections ended; both go on with new ones.
    given += [entry.level for entry in registry.allocate(Wish(), 20)]
    assert len(set(given)) == 40
    assert {entry.level for entry in watcher.reservations()} == set(given)


def test_a_server_that_is_away_is_told_and_changes_nothing(server, open_registry):
    registry = open_registry()
    registry.allocate(Wish())
    server.stop("fast")
    try:
        with pytest.raises(BackendUnavailableError, match="nothing was changed"):
            registry.allocate(Wish())
        with pytest.raises(BackendUnavailableError):
            open_registry()
    finally:
        server.start()
    assert len(registry.reservations()) == 1


def test_the_same_rules_hold_as_in_a_file(open_registry):
    registry = open_registry()
    registry.reserve(Level.parse("s0:c0.c4"), owner="a", name="wide", lease=60)
    registry.observe([Observation(Level.parse("s0:c5"), "container")], complete=True)
    with pytest.raises(AllocationError, match="is reserved"):
        registry.reserve(Level.parse("s0:c1,c2"))
    with pytest.raises(AllocationError, match="in use"):
        registry.reserve(Level.parse("s0:c5,c6"))
    assert len(registry.allocate(Wish(2, 0, 7), 10)) == 10
    with pytest.raises(CategoriesExhaustedError):
        registry.allocate(Wish(2, 0, 7), 2)
    odd = Level(0, range(9, 1024, 2))
    registry.reserve(odd, owner="b")
    assert registry.collect({"a"}, grace=0)[0].level == odd
    assert registry.release(owner="a").name == "wide"


def test_a_newer_schema_and_a_password(server, open_registry):
    open_registry()
    with psycopg.connect(server.url) as connection:
        connection.execute("UPDATE svirt_registry SET version = 2")
    try:
        url = server.url.replace("postgres@", "postgres:secret@")
        with pytest.raises(BackendDataError, match="has version 2") as caught:
            store.open_registry(url)
    finally:
        with psycopg.connect(server.url) as connection:
            connection.execute("UPDATE svirt_registry SET version = 1")
    assert "secret" not in str(caught.value)


def test_the_constraint_decides_whatever_a_client_believes(server, open_registry):
    registry = open_registry()
    [held] = registry.allocate(Wish())
    with psycopg.connect(server.url) as connection, pytest.raises(psycopg.IntegrityError):
        connection.execute(
            "INSERT INTO svirt_reservation (domain, key, level, size, sensitivity, host, created) "
            "SELECT domain, key, level, size, sensitivity, 'x', 0 FROM svirt_reservation "
            "WHERE key = %s",
            [str(held.level)],
        )

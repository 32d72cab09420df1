"""The registry in a database: SQLite for one host, PostgreSQL for many.

SQLAlchemy Core in the 2.0 style that 1.4 (Debian 12, RHEL 9) knows too, so that one schema and
one set of statements serve both. The driver for PostgreSQL is psycopg 3 where SQLAlchemy
knows it (from 2.0 on), else psycopg2, the only one that SQLAlchemy 1.4 has.

How two callers are kept from handing out comparable levels:

- The primary key (domain, level) refuses a second reservation of one level, whatever a client
  believes. Levels of the common kind, two categories of the lowest sensitivity, can be
  comparable with each other in no other way, so that any number of clients allocate them at
  once, each holding the lock of the domain in share mode.
- Whatever can contradict levels of another kind (a reservation of another kind, a host's
  observations, a full count) holds the lock of the domain alone. In PostgreSQL that is an
  advisory lock, for which clients queue in order; in databases that speak its protocol alone,
  whose advisory locks may do nothing, it is the domain's row.
- SQLite has one writer: BEGIN IMMEDIATE takes that place before anything is read.

A level is told in keys by its canonical text, and by a digest of it where that is longer than
an index takes.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any, Callable, Optional, TypeVar

import sqlalchemy as sa
from sqlalchemy import event, exc

from svirtlib.backends import journal
from svirtlib.backends._engines import (
    APPLICATION_ID,
    PATIENCE,
    first_line,
    is_postgresql_itself,
    is_worth_another_try,
    parse_url,
    postgresql_engine,
    prepare_file,
    sqlite_engine,
    state_of,
)
from svirtlib.backends._tables import (
    DOMAIN,
    OBSERVATION,
    OTHERS,
    RESERVATION,
    SCHEMA_VERSION,
    TAKEN,
    VERSION,
    create_tables,
    key_of,
    level_of,
    reservation_of,
    row_of,
)
from svirtlib.errors import (
    AllocationError,
    BackendDataError,
    BackendError,
    BackendPermissionError,
    BackendTimeoutError,
    BackendUnavailableError,
    quote,
)
from svirtlib.mls import Level
from svirtlib.registry import (
    Observation,
    Reservation,
    Wish,
    abandoned,
    check_count,
    choose,
    choose_exactly,
    obstacle,
)

__all__ = ["SCHEMA_VERSION", "SqlRegistry"]

#: Kind of the levels for which the unique constraint alone decides: size and sensitivity.
_COMMON = (2, 0)

#: How often a transaction is tried that others made fail; from the third try on alone.
_TRIES = 8
_TRIES_SHARED = 2

#: Values in one statement; SQLite before 3.32 takes 999.
_CHUNK = 400  # the keys stand in one statement twice

_Result = TypeVar("_Result")
_Work = Callable[[Any], _Result]

_READ, _SHARED, _ALONE = "read", "shared", "alone"


class SqlRegistry:
    """Implements :class:`svirtlib.registry.Registry`; not safe for several threads at once."""

    def __init__(self, url: str, domain: str, host: str) -> None:
        self.domain = domain
        self.host = host
        self._connection: Any = None
        self._mode = _READ
        #: The server has advisory locks that lock.
        self._advisory = False
        parsed = parse_url(url)
        self._where = parsed.render_as_string(hide_password=True)
        if parsed.drivername == "sqlite":
            path = os.path.abspath(parsed.database or "")
            self._where = path
            prepare_file(path)
            self._engine = sqlite_engine(path)
            event.listen(self._engine, "begin", self._begin_sqlite)
        else:
            self._engine = postgresql_engine(parsed)
        try:
            self._open()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End the connection to the store."""
        self._disconnect()
        self._engine.dispose()

    def allocate(
        self,
        wish: Wish,
        count: int = 1,
        *,
        owner: Optional[str] = None,
        name: Optional[str] = None,
        purpose: Optional[str] = None,
        lease: Optional[int] = None,
    ) -> list[Reservation]:
        """Reserve levels; see :meth:`svirtlib.registry.Registry.allocate`."""
        check_count(wish, count, owner)
        held: Optional[Reservation] = None

        def work(connection: Any) -> Optional[list[Reservation]]:
            nonlocal held
            if owner is not None:
                held = self._held_by(connection, owner)
                if held is not None:
                    if not wish.fits(held.level):
                        raise AllocationError(
                            f"owner {owner} has {held.level}, which is not what is asked for "
                            f"({wish}); release it first"
                        )
                    return [self._renewed(connection, held, lease)]
            if self._mode == _SHARED or count < wish.capacity // 2:
                levels = choose(
                    wish,
                    count,
                    self._others(connection, wish),
                    lambda candidates: self._taken(connection, candidates),
                )
            else:
                levels = None
            if levels is None:
                if self._mode == _SHARED:
                    return None
                # The last resort takes in what leases that ended held.
                self._drop(connection, self._abandoned(connection, None, 0))
                levels = choose_exactly(wish, count, self._in_use(connection))
            return self._insert(connection, levels, owner, name, purpose, lease)

        repeatable = owner is not None
        result = None
        if (wish.size, wish.sensitivity) == _COMMON:
            result = self._run(work, _SHARED, repeatable=repeatable)
        if result is None:
            result = self._run(work, _ALONE, repeatable=repeatable)
        if result is None:
            raise AssertionError("who is alone decides")
        if result != [held]:
            self._announce("allocate", "reserved", result)
        return result

    def reserve(
        self,
        level: Level,
        *,
        owner: Optional[str] = None,
        name: Optional[str] = None,
        purpose: Optional[str] = None,
        lease: Optional[int] = None,
    ) -> Reservation:
        """Reserve this level; see :meth:`svirtlib.registry.Registry.reserve`."""
        if not level.mask:
            raise AllocationError(
                f"level {level} has no categories: every guest reaches what has it, and no "
                f"reservation keeps it apart"
            )
        held: Optional[Reservation] = None

        def work(connection: Any) -> Reservation:
            nonlocal held
            if owner is not None:
                held = self._held_by(connection, owner)
                if held is not None and held.level == level:
                    return self._renewed(connection, held, lease)
                if held is not None:
                    raise AllocationError(
                        f"owner {owner} has {held.level}, and an owner has one level in a "
                        f"domain; release it first"
                    )
            self._drop(connection, self._abandoned(connection, None, 0))
            found = obstacle(
                level, owner, self._reservations(connection), self._observations(connection)
            )
            if found is not None:
                raise AllocationError(f"level {level} cannot be reserved: {found}")
            return self._insert(connection, [level], owner, name, purpose, lease)[0]

        result = self._run(work, _ALONE, repeatable=owner is not None)
        if result != held:
            self._announce("reserve", "reserved", [result])
        return result

    def release(self, *, level: Optional[Level] = None, owner: Optional[str] = None) -> Reservation:
        """End a reservation; see :meth:`svirtlib.registry.Registry.release`."""
        table = RESERVATION.c
        if (level is None) == (owner is None):
            raise AllocationError("a reservation is told by its level or by its owner")
        which = table.owner == owner if level is None else table.key == key_of(level)
        what = f"owner {owner}" if level is None else f"level {level}"

        def work(connection: Any) -> Reservation:
            row = connection.execute(
                sa.select(RESERVATION).where(table.domain == self.domain, which)
            ).first()
            if row is None:
                raise AllocationError(
                    f"{what} has no reservation in the domain {quote(self.domain)}"
                )
            reservation = reservation_of(row)
            self._drop(connection, [reservation])
            return reservation

        result = self._run(work, _SHARED)
        self._announce("release", "released", [result])
        return result

    def reservations(self) -> list[Reservation]:
        """Return all reservations; see :meth:`svirtlib.registry.Registry.reservations`."""
        found = self._run(lambda connection: list(self._reservations(connection)), _READ)
        return sorted(found, key=lambda reservation: reservation.level.sort_key)

    def observe(
        self, observations: Sequence[Observation], *, complete: bool, dry_run: bool = False
    ) -> list[str]:
        """Note what is in use; see :meth:`svirtlib.registry.Registry.observe`."""
        table = OBSERVATION.c
        here = sa.and_(table.domain == self.domain, table.host == self.host)
        seen = {key_of(entry.level): entry for entry in observations if entry.level.mask}

        def work(connection: Any) -> list[str]:
            reserved: dict[Level, Reservation] = {}
            for reservation in self._reservations(connection):
                reserved[reservation.level] = reservation
            if not dry_run:
                if complete:
                    connection.execute(sa.delete(OBSERVATION).where(here))
                else:
                    for part in _chunks(list(seen)):
                        connection.execute(sa.delete(OBSERVATION).where(here, table.key.in_(part)))
                now = int(time.time())
                rows = [
                    {
                        **self._level_columns(entry.level),
                        "host": self.host,
                        "owner": entry.owner,
                        "what": entry.what,
                        "seen": now,
                    }
                    for _, entry in sorted(seen.items())
                ]
                if rows:
                    connection.execute(sa.insert(OBSERVATION), rows)
            return list(_contradictions(seen.values(), reserved))

        result = self._run(work, _READ if dry_run else _ALONE, repeatable=True)
        if not dry_run:
            # Each call notes what is in use anew; of this there is much, and little to look for.
            journal.changed(
                f"noted {len(seen)} levels in use on {self.host}",
                "sync",
                priority=journal.INFO,
                LEVELS=len(seen),
                DOMAIN=self.domain,
                HOST=self.host,
            )
        return result

    def collect(
        self, owners: Optional[Collection[str]], *, grace: int, dry_run: bool = False
    ) -> list[Reservation]:
        """Drop what nobody needs; see :meth:`svirtlib.registry.Registry.collect`."""

        def work(connection: Any) -> list[Reservation]:
            dropped = self._abandoned(connection, owners, grace)
            if not dry_run:
                self._drop(connection, dropped)
            return dropped

        result = self._run(work, _READ if dry_run else _ALONE, repeatable=True)
        if result and not dry_run:
            self._announce("gc", "dropped", result)
        return result

    def _announce(self, verb: str, done: str, reservations: Sequence[Reservation]) -> None:
        """Tell the journal of reservations that were made or ended."""
        levels = [str(reservation.level) for reservation in reservations]
        more = f" and {len(levels) - 10} more" if len(levels) > 10 else ""
        journal.changed(
            f"{done} {', '.join(levels[:10])}{more} in the domain {self.domain}",
            verb,
            LEVEL=levels,
            LEVELS=len(levels),
            DOMAIN=self.domain,
            HOST=self.host,
            GUEST=_told(reservation.name for reservation in reservations),
            UUID=_told(reservation.owner for reservation in reservations),
        )

    # What the transactions consist of.

    def _held_by(self, connection: Any, owner: str) -> Optional[Reservation]:
        table = RESERVATION.c
        row = connection.execute(
            sa.select(RESERVATION).where(table.domain == self.domain, table.owner == owner)
        ).first()
        return None if row is None else reservation_of(row)

    def _renewed(self, connection: Any, held: Reservation, lease: Optional[int]) -> Reservation:
        table = RESERVATION.c
        expires = None if lease is None else self._now(connection) + lease
        if expires != held.expires:
            connection.execute(
                sa.update(RESERVATION)
                .where(table.domain == self.domain, table.key == key_of(held.level))
                .values(expires=expires)
            )
        row = row_of(held)
        row["expires"] = expires
        return Reservation(**row)

    def _others(self, connection: Any, wish: Wish) -> list[Level]:
        """Return the levels in use of other kinds than the one that is wished."""
        rows = connection.execute(
            OTHERS,
            {"domain": self.domain, "size": wish.size, "sensitivity": wish.sensitivity},
        )
        return [level_of(text) for text in dict.fromkeys(row[0] for row in rows)]

    def _taken(self, connection: Any, candidates: Sequence[Level]) -> set[Level]:
        by_key = {key_of(level): level for level in candidates}
        taken: set[Level] = set()
        for part in _chunks(list(by_key)):
            rows = connection.execute(TAKEN, {"domain": self.domain, "keys": part})
            taken.update(by_key[row[0]] for row in rows)
        return taken

    def _in_use(self, connection: Any) -> list[Level]:
        texts: dict[str, None] = {}
        for table in (RESERVATION, OBSERVATION):
            rows = connection.execute(sa.select(table.c.level).where(table.c.domain == self.domain))
            texts.update((row[0], None) for row in rows)
        return [level_of(text) for text in texts]

    def _reservations(self, connection: Any) -> Iterator[Reservation]:
        rows = connection.execute(sa.select(RESERVATION).where(RESERVATION.c.domain == self.domain))
        return map(reservation_of, rows)

    def _observations(self, connection: Any) -> Iterator[Observation]:
        table = OBSERVATION.c
        rows = connection.execute(
            sa.select(table.level, table.what, table.owner, table.host).where(
                table.domain == self.domain
            )
        )
        for level, what, owner, host in rows:
            place = what if host == self.host else f"{what} on {host}"
            yield Observation(level_of(level), place, owner)

    def _abandoned(
        self, connection: Any, owners: Optional[Collection[str]], grace: int
    ) -> list[Reservation]:
        observations = list(self._observations(connection))
        known = None
        if owners is not None:
            known = {*owners, *(entry.owner for entry in observations if entry.owner)}
        return abandoned(
            self._reservations(connection),
            {entry.level for entry in observations},
            known,
            host=self.host,
            now=self._now(connection),
            grace=grace,
        )

    def _drop(self, connection: Any, reservations: Sequence[Reservation]) -> None:
        table = RESERVATION.c
        # In one order, lest two clients wait for each other.
        for part in _chunks(sorted(key_of(entry.level) for entry in reservations)):
            connection.execute(
                sa.delete(RESERVATION).where(table.domain == self.domain, table.key.in_(part))
            )

    def _insert(
        self,
        connection: Any,
        levels: Sequence[Level],
        owner: Optional[str],
        name: Optional[str],
        purpose: Optional[str],
        lease: Optional[int],
    ) -> list[Reservation]:
        # The server's clock ends leases; without one, no question is worth the time.
        now = int(time.time()) if lease is None else self._now(connection)
        reservations = [
            Reservation(
                level=level,
                domain=self.domain,
                owner=owner,
                name=name,
                purpose=purpose,
                host=self.host,
                created=now,
                expires=None if lease is None else now + lease,
            )
            for level in levels
        ]
        rows = [
            {**row_of(reservation), **self._level_columns(reservation.level)}
            for reservation in reservations
        ]
        connection.execute(sa.insert(RESERVATION), sorted(rows, key=lambda row: str(row["key"])))
        return reservations

    def _level_columns(self, level: Level) -> dict[str, object]:
        return {
            "domain": self.domain,
            "key": key_of(level),
            "level": str(level),
            "size": len(level.categories),
            "sensitivity": level.sensitivity,
        }

    def _now(self, connection: Any) -> int:
        """Return the time by the one clock that all clients share."""
        if self._engine.dialect.name == "sqlite":
            return int(time.time())
        return int(connection.execute(sa.select(sa.extract("epoch", sa.func.now()))).scalar())

    # Transactions.

    def _open(self) -> None:
        """See to it that there are the tables of this version, and the domain's row."""
        self._run(self._make_tables, _READ, repeatable=True)
        self._run(self._check_version, _READ, repeatable=True)
        if self._engine.dialect.name == "postgresql":
            self._advisory = self._run(is_postgresql_itself, _READ, repeatable=True)
        if not self._run(self._has_domain, _READ, repeatable=True):
            self._run(self._add_domain, _ALONE, lock=False, repeatable=True)

    def _make_tables(self, connection: Any) -> None:
        if sa.inspect(connection).has_table(VERSION.name):
            return
        if self._engine.dialect.name == "sqlite":
            # prepare_file makes each file with its tables.
            raise BackendDataError(f"{self._where} is no registry; name another file")
        # Two who make one table at once would disturb each other. Where the lock does nothing
        # the second one fails, and finds the tables when it tries again.
        connection.execute(sa.text(f"SELECT pg_advisory_xact_lock({APPLICATION_ID})"))
        if not sa.inspect(connection).has_table(VERSION.name):
            create_tables(connection)

    def _check_version(self, connection: Any) -> None:
        versions = [row[0] for row in connection.execute(sa.select(VERSION.c.version))]
        if versions != [SCHEMA_VERSION]:
            newest = max(versions, default=0)
            advice = (
                "use the newer svirt-label that wrote it"
                if newest > SCHEMA_VERSION
                else "restore it from a backup"
            )
            raise BackendDataError(
                f"{self._where} has version {newest or 'unknown'} of the registry's schema, and "
                f"this svirt-label knows {SCHEMA_VERSION}: {advice}"
            )

    def _has_domain(self, connection: Any) -> bool:
        query = sa.select(DOMAIN.c.name).where(DOMAIN.c.name == self.domain)
        return connection.execute(query).first() is not None

    def _add_domain(self, connection: Any) -> None:
        if not self._has_domain(connection):
            connection.execute(sa.insert(DOMAIN), [{"name": self.domain}])

    def _lock(self, connection: Any, mode: str) -> None:
        if self._advisory:
            shared = "_shared" if mode == _SHARED else ""
            digest = hashlib.sha256(f"svirt-label {self.domain}".encode()).digest()
            number = int.from_bytes(digest[:8], "big", signed=True)
            connection.execute(sa.text(f"SELECT pg_advisory_xact_lock{shared}({number})"))
            return
        row = connection.execute(
            sa.select(DOMAIN.c.name)
            .where(DOMAIN.c.name == self.domain)
            .with_for_update(read=mode == _SHARED)
        ).first()
        if row is None:
            raise BackendDataError(f"{self._where} has lost the domain {quote(self.domain)}")

    def _run(
        self, work: _Work[_Result], mode: str, *, lock: bool = True, repeatable: bool = False
    ) -> _Result:
        """Do *work* in one transaction, and again where others made it fail.

        Args:
            work: given the connection.
            mode: what it locks: nothing, the domain together with others, the domain.
            lock: take the lock; False before there is a row to lock.
            repeatable: doing it twice is as good as once, so that it may be tried again when
                the connection ended while the end of the transaction was on its way.
        """
        failure: Optional[Exception] = None
        for number in range(_TRIES):
            self._mode = _ALONE if mode == _SHARED and number >= _TRIES_SHARED else mode
            ending = False
            try:
                connection = self._connected()
                with connection.begin():
                    if lock and mode != _READ:
                        self._lock(connection, self._mode)
                    result = work(connection)
                    ending = True
                return result
            except exc.IntegrityError as error:
                # Somebody else was given the same level, or the same owner asked twice.
                failure = error
            except exc.DBAPIError as error:
                failure = error
                if error.connection_invalidated:
                    self._disconnect()
                    if ending and not repeatable:
                        raise BackendError(
                            f"{self._where}: the connection ended before the answer came, and "
                            f"it is not known whether the change was made; look with "
                            f"'svirt-label list --reserved'"
                        ) from None
                elif not is_worth_another_try(error):
                    raise self._error(error) from None
            except exc.SQLAlchemyError as error:
                raise BackendError(f"{self._where}: {first_line(error)}") from None
        if isinstance(failure, exc.DBAPIError):
            raise self._error(failure) from None
        raise AssertionError("a try without a failure has a result")

    def _connected(self) -> Any:
        if self._connection is None:
            self._connection = self._engine.connect()
        return self._connection

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(exc.SQLAlchemyError):
                connection.close()

    def _begin_sqlite(self, connection: Any) -> None:
        connection.exec_driver_sql("BEGIN" if self._mode == _READ else "BEGIN IMMEDIATE")

    def _error(self, error: exc.DBAPIError) -> BackendError:
        text = f"{self._where}: {first_line(error)}"
        state = state_of(error)
        lowered = text.lower()
        if state == "55P03" or "database is locked" in lowered:
            return BackendTimeoutError(f"{text}: another process has held it for {PATIENCE} s")
        if state in ("42501", "28P01", "28000") or "readonly database" in lowered:
            return BackendPermissionError(f"{text}; nothing was changed")
        if "not a database" in lowered or "malformed" in lowered:
            return BackendDataError(f"{text}: restore it from a backup, or name another file")
        if self._engine.dialect.name == "sqlite":
            return BackendError(f"{text}; nothing was changed")
        if error.connection_invalidated or state.startswith(("08", "57")) or not state:
            return BackendUnavailableError(f"{text}; nothing was changed")
        return BackendError(f"{text}; nothing was changed")


def _contradictions(
    observations: Collection[Observation], reserved: dict[Level, Reservation]
) -> Iterator[str]:
    """Tell which levels in use are reserved for somebody else."""
    for entry in observations:
        reservation = reserved.get(entry.level)
        if reservation is None or reservation.owner in (None, entry.owner) or entry.owner is None:
            continue
        yield (
            f"{entry.level} is reserved for {reservation.name or reservation.owner}, and "
            f"{entry.what} has it"
        )


def _told(texts: Iterable[Optional[str]]) -> list[str]:
    """Return texts without those that are missing, each once."""
    return list(dict.fromkeys(text for text in texts if text))


def _chunks(values: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(values), _CHUNK):
        yield values[start : start + _CHUNK]

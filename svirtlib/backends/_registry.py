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
import sqlite3
import stat
import tempfile
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any, Callable, Optional, TypeVar

import sqlalchemy as sa
from sqlalchemy import event, exc
from sqlalchemy.engine import URL, make_url
from sqlalchemy.pool import NullPool

from svirtlib.backends import journal
from svirtlib.errors import (
    AllocationError,
    BackendDataError,
    BackendError,
    BackendPermissionError,
    BackendTimeoutError,
    BackendUnavailableError,
    InvalidLevelError,
    SelectionError,
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

SCHEMA_VERSION = 1

#: Kind of the levels for which the unique constraint alone decides: size and sensitivity.
_COMMON = (2, 0)

#: "svlb": tells a registry from other SQLite files (PRAGMA application_id).
_APPLICATION_ID = 0x73766C62

#: Seconds to wait for others who write.
_PATIENCE = 30

#: How often a transaction is tried that others made fail; from the third try on alone.
_TRIES = 8
_TRIES_SHARED = 2

#: Values in one statement; SQLite before 3.32 takes 999.
_CHUNK = 400  # the keys stand in one statement twice

#: Longest text of a level in a key.
_LONGEST_KEY = 200

_METADATA = sa.MetaData()
_VERSION = sa.Table("svirt_registry", _METADATA, sa.Column("version", sa.Integer, primary_key=True))
_DOMAIN = sa.Table("svirt_domain", _METADATA, sa.Column("name", sa.String(200), primary_key=True))
_RESERVATION = sa.Table(
    "svirt_reservation",
    _METADATA,
    sa.Column("domain", sa.String(200), primary_key=True),
    sa.Column("key", sa.String(_LONGEST_KEY), primary_key=True),
    sa.Column("level", sa.Text, nullable=False),
    sa.Column("size", sa.Integer, nullable=False),
    sa.Column("sensitivity", sa.Integer, nullable=False),
    sa.Column("owner", sa.String(200)),
    sa.Column("name", sa.Text),
    sa.Column("purpose", sa.Text),
    sa.Column("host", sa.Text, nullable=False),
    sa.Column("created", sa.BigInteger, nullable=False),
    sa.Column("expires", sa.BigInteger),
    # NULLs differ from each other: who gives no owner may have many.
    sa.UniqueConstraint("domain", "owner", name="svirt_reservation_owner"),
    sa.Index("svirt_reservation_kind", "domain", "sensitivity", "size"),
)
_OBSERVATION = sa.Table(
    "svirt_observation",
    _METADATA,
    sa.Column("domain", sa.String(200), primary_key=True),
    sa.Column("key", sa.String(_LONGEST_KEY), primary_key=True),
    sa.Column("host", sa.String(200), primary_key=True),
    sa.Column("level", sa.Text, nullable=False),
    sa.Column("size", sa.Integer, nullable=False),
    sa.Column("sensitivity", sa.Integer, nullable=False),
    sa.Column("owner", sa.String(200)),
    sa.Column("what", sa.Text, nullable=False),
    sa.Column("seen", sa.BigInteger, nullable=False),
    sa.Index("svirt_observation_kind", "domain", "sensitivity", "size"),
)


def _others() -> Any:
    """Return the question for levels of other kinds than one."""
    domain, size, sensitivity = map(sa.bindparam, ("domain", "size", "sensitivity"))
    parts = []
    for table in (_RESERVATION.c, _OBSERVATION.c):
        # Ranges of an index; "another than" would look at each row.
        parts += [
            sa.select(table.level).where(table.domain == domain, kind)
            for kind in (
                table.sensitivity < sensitivity,
                table.sensitivity > sensitivity,
                sa.and_(table.sensitivity == sensitivity, table.size < size),
                sa.and_(table.sensitivity == sensitivity, table.size > size),
            )
        ]
    return sa.union_all(*parts)


def _taken() -> Any:
    """Return the question which of some keys are there."""
    domain, keys = sa.bindparam("domain"), sa.bindparam("keys", expanding=True)
    return sa.union_all(
        *(
            sa.select(table.key).where(table.domain == domain, table.key.in_(keys))
            for table in (_RESERVATION.c, _OBSERVATION.c)
        )
    )


#: Asked at each allocation; made once, for making them takes longer than the answer.
_OTHERS = _others()
_TAKEN = _taken()

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
        parsed = _parse(url)
        self._where = parsed.render_as_string(hide_password=True)
        if parsed.drivername == "sqlite":
            path = os.path.abspath(parsed.database or "")
            self._where = path
            _prepare(path)
            self._engine = _sqlite_engine(path)
            event.listen(self._engine, "begin", self._begin_sqlite)
        else:
            self._engine = _postgresql_engine(parsed)
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
        table = _RESERVATION.c
        if (level is None) == (owner is None):
            raise AllocationError("a reservation is told by its level or by its owner")
        which = table.owner == owner if level is None else table.key == _key(level)
        what = f"owner {owner}" if level is None else f"level {level}"

        def work(connection: Any) -> Reservation:
            row = connection.execute(
                sa.select(_RESERVATION).where(table.domain == self.domain, which)
            ).first()
            if row is None:
                raise AllocationError(
                    f"{what} has no reservation in the domain {quote(self.domain)}"
                )
            reservation = _reservation(row)
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
        table = _OBSERVATION.c
        here = sa.and_(table.domain == self.domain, table.host == self.host)
        seen = {_key(entry.level): entry for entry in observations if entry.level.mask}

        def work(connection: Any) -> list[str]:
            reserved: dict[Level, Reservation] = {}
            for reservation in self._reservations(connection):
                reserved[reservation.level] = reservation
            if not dry_run:
                if complete:
                    connection.execute(sa.delete(_OBSERVATION).where(here))
                else:
                    for part in _chunks(list(seen)):
                        connection.execute(sa.delete(_OBSERVATION).where(here, table.key.in_(part)))
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
                    connection.execute(sa.insert(_OBSERVATION), rows)
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
        table = _RESERVATION.c
        row = connection.execute(
            sa.select(_RESERVATION).where(table.domain == self.domain, table.owner == owner)
        ).first()
        return None if row is None else _reservation(row)

    def _renewed(self, connection: Any, held: Reservation, lease: Optional[int]) -> Reservation:
        table = _RESERVATION.c
        expires = None if lease is None else self._now(connection) + lease
        if expires != held.expires:
            connection.execute(
                sa.update(_RESERVATION)
                .where(table.domain == self.domain, table.key == _key(held.level))
                .values(expires=expires)
            )
        row = _row(held)
        row["expires"] = expires
        return Reservation(**row)

    def _others(self, connection: Any, wish: Wish) -> list[Level]:
        """Return the levels in use of other kinds than the one that is wished."""
        rows = connection.execute(
            _OTHERS,
            {"domain": self.domain, "size": wish.size, "sensitivity": wish.sensitivity},
        )
        return [_parsed(text) for text in dict.fromkeys(row[0] for row in rows)]

    def _taken(self, connection: Any, candidates: Sequence[Level]) -> set[Level]:
        by_key = {_key(level): level for level in candidates}
        taken: set[Level] = set()
        for part in _chunks(list(by_key)):
            rows = connection.execute(_TAKEN, {"domain": self.domain, "keys": part})
            taken.update(by_key[row[0]] for row in rows)
        return taken

    def _in_use(self, connection: Any) -> list[Level]:
        texts: dict[str, None] = {}
        for table in (_RESERVATION, _OBSERVATION):
            rows = connection.execute(sa.select(table.c.level).where(table.c.domain == self.domain))
            texts.update((row[0], None) for row in rows)
        return [_parsed(text) for text in texts]

    def _reservations(self, connection: Any) -> Iterator[Reservation]:
        rows = connection.execute(
            sa.select(_RESERVATION).where(_RESERVATION.c.domain == self.domain)
        )
        return map(_reservation, rows)

    def _observations(self, connection: Any) -> Iterator[Observation]:
        table = _OBSERVATION.c
        rows = connection.execute(
            sa.select(table.level, table.what, table.owner, table.host).where(
                table.domain == self.domain
            )
        )
        for level, what, owner, host in rows:
            place = what if host == self.host else f"{what} on {host}"
            yield Observation(_parsed(level), place, owner)

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
        table = _RESERVATION.c
        # In one order, lest two clients wait for each other.
        for part in _chunks(sorted(_key(entry.level) for entry in reservations)):
            connection.execute(
                sa.delete(_RESERVATION).where(table.domain == self.domain, table.key.in_(part))
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
            {**_row(reservation), **self._level_columns(reservation.level)}
            for reservation in reservations
        ]
        connection.execute(sa.insert(_RESERVATION), sorted(rows, key=lambda row: str(row["key"])))
        return reservations

    def _level_columns(self, level: Level) -> dict[str, object]:
        return {
            "domain": self.domain,
            "key": _key(level),
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
            self._advisory = self._run(_is_postgresql_itself, _READ, repeatable=True)
        if not self._run(self._has_domain, _READ, repeatable=True):
            self._run(self._add_domain, _ALONE, lock=False, repeatable=True)

    def _make_tables(self, connection: Any) -> None:
        if sa.inspect(connection).has_table(_VERSION.name):
            return
        if self._engine.dialect.name == "sqlite":
            # _prepare makes each file with its tables.
            raise BackendDataError(f"{self._where} is no registry; name another file")
        # Two who make one table at once would disturb each other. Where the lock does nothing
        # the second one fails, and finds the tables when it tries again.
        connection.execute(sa.text(f"SELECT pg_advisory_xact_lock({_APPLICATION_ID})"))
        if not sa.inspect(connection).has_table(_VERSION.name):
            _create(connection)

    def _check_version(self, connection: Any) -> None:
        versions = [row[0] for row in connection.execute(sa.select(_VERSION.c.version))]
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
        query = sa.select(_DOMAIN.c.name).where(_DOMAIN.c.name == self.domain)
        return connection.execute(query).first() is not None

    def _add_domain(self, connection: Any) -> None:
        if not self._has_domain(connection):
            connection.execute(sa.insert(_DOMAIN), [{"name": self.domain}])

    def _lock(self, connection: Any, mode: str) -> None:
        if self._advisory:
            shared = "_shared" if mode == _SHARED else ""
            digest = hashlib.sha256(f"svirt-label {self.domain}".encode()).digest()
            number = int.from_bytes(digest[:8], "big", signed=True)
            connection.execute(sa.text(f"SELECT pg_advisory_xact_lock{shared}({number})"))
            return
        row = connection.execute(
            sa.select(_DOMAIN.c.name)
            .where(_DOMAIN.c.name == self.domain)
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
                elif not _is_worth_another_try(error):
                    raise self._error(error) from None
            except exc.SQLAlchemyError as error:
                raise BackendError(f"{self._where}: {_first_line(error)}") from None
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
        text = f"{self._where}: {_first_line(error)}"
        state = _state(error)
        lowered = text.lower()
        if state == "55P03" or "database is locked" in lowered:
            return BackendTimeoutError(f"{text}: another process has held it for {_PATIENCE} s")
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


def _row(reservation: Reservation) -> dict[str, Any]:
    return {
        "level": reservation.level,
        "domain": reservation.domain,
        "owner": reservation.owner,
        "name": reservation.name,
        "purpose": reservation.purpose,
        "host": reservation.host,
        "created": reservation.created,
        "expires": reservation.expires,
    }


def _reservation(row: Any) -> Reservation:
    return Reservation(
        level=_parsed(row.level),
        domain=row.domain,
        owner=row.owner,
        name=row.name,
        purpose=row.purpose,
        host=row.host,
        created=row.created,
        expires=row.expires,
    )


def _parsed(text: str) -> Level:
    try:
        return Level.parse(text)
    except InvalidLevelError as error:
        raise BackendDataError(f"the registry holds what is no level: {error}") from None


def _key(level: Level) -> str:
    text = str(level)
    if len(text) <= _LONGEST_KEY:
        return text
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


def _chunks(values: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(values), _CHUNK):
        yield values[start : start + _CHUNK]


def _is_postgresql_itself(connection: Any) -> bool:
    """Tell the server from others that speak its protocol, and whose advisory locks may not."""
    version = str(connection.execute(sa.text("SELECT version()")).scalar())
    # "PostgreSQL 15.1-YB-2.21" is YugabyteDB.
    return version.startswith("PostgreSQL ") and "-YB-" not in version


def _create(connection: Any) -> None:
    _METADATA.create_all(connection)
    connection.execute(sa.insert(_VERSION), [{"version": SCHEMA_VERSION}])


def _state(error: exc.DBAPIError) -> str:
    """Return PostgreSQL's SQLSTATE, or nothing."""
    original = error.orig
    return getattr(original, "sqlstate", None) or getattr(original, "pgcode", None) or ""


def _is_worth_another_try(error: exc.DBAPIError) -> bool:
    # Serialization failure, deadlock; a table or type that another client made meanwhile.
    return _state(error) in ("40001", "40P01", "42P07", "42710", "23505")


def _first_line(error: exc.SQLAlchemyError) -> str:
    original = getattr(error, "orig", None) or error
    lines = str(original).strip().splitlines()
    return lines[0] if lines else type(original).__name__


def _parse(url: str) -> URL:
    """Return the URL of a database, given one or a path."""
    if "://" not in url:
        return URL.create("sqlite", database=url)
    try:
        parsed = make_url(url)
    except (exc.ArgumentError, ValueError):
        raise SelectionError("the registry's URL cannot be read; see docs/allocation.md") from None
    backend = parsed.get_backend_name()
    if backend == "sqlite":
        if not parsed.database or parsed.database.startswith(":memory:") or parsed.query:
            raise SelectionError("a registry in SQLite is a file: sqlite:////path/to/file")
        return parsed.set(drivername="sqlite")
    if backend != "postgresql":
        raise SelectionError(f"a registry is kept in SQLite or PostgreSQL, not in {quote(backend)}")
    return parsed


def _postgresql_engine(url: URL) -> Any:
    if url.drivername == "postgresql":
        url = url.set(drivername=f"postgresql+{_driver()}")
    try:
        engine = sa.create_engine(
            url,
            poolclass=NullPool,
            future=True,
            # Each statement sees what was committed before it: after the domain's row is
            # locked, all that those did who held it before.
            isolation_level="READ COMMITTED",
            connect_args={"connect_timeout": _PATIENCE},
        )
    except (exc.SQLAlchemyError, ImportError) as error:
        raise BackendUnavailableError(f"no driver for PostgreSQL: {error}") from None
    event.listen(engine, "connect", _limit_waiting)
    return engine


def _driver() -> str:
    """Return the name of the driver of PostgreSQL that SQLAlchemy knows and Python has."""
    import importlib.util

    if not sa.__version__.startswith("1.") and importlib.util.find_spec("psycopg"):
        return "psycopg"
    if importlib.util.find_spec("psycopg2"):
        return "psycopg2"
    raise BackendUnavailableError(
        "no driver for PostgreSQL: install svirtlib[postgres], or python3-psycopg2"
    )


def _limit_waiting(connection: Any, _record: object) -> None:
    cursor = connection.cursor()
    cursor.execute(f"SET lock_timeout = '{_PATIENCE}s'")
    cursor.execute("SET idle_in_transaction_session_timeout = '60s'")
    cursor.close()
    connection.commit()


def _sqlite_engine(path: str) -> Any:
    def connect() -> sqlite3.Connection:
        connection = _connect(path)
        try:
            if connection.execute("PRAGMA application_id").fetchone()[0] != _APPLICATION_ID:
                raise BackendDataError(f"{path} is no registry; name another file")
        except BaseException:
            connection.close()
            raise
        return connection

    return sa.create_engine("sqlite://", creator=connect, poolclass=NullPool, future=True)


def _connect(path: str) -> sqlite3.Connection:
    # isolation_level=None: the driver begins no transactions of its own.
    connection = sqlite3.connect(path, timeout=_PATIENCE, isolation_level=None)
    try:
        # In WAL mode NORMAL may lose the last transactions when the power fails.
        connection.execute("PRAGMA synchronous = FULL")
    except BaseException:
        connection.close()
        raise
    return connection


def _prepare(path: str) -> None:
    """Make a registry's file if there is none, and refuse one that others could have written.

    A file gets its name when it is complete, so that it is never seen without its tables, and
    of several who make it at once one wins.

    Raises:
        BackendError: see its text.
    """
    directory = os.path.dirname(path)
    try:
        if not os.path.isdir(directory):
            os.makedirs(directory, mode=0o700, exist_ok=True)
        _check_directory(directory)
        try:
            _check_file(path)
            return
        except FileNotFoundError:
            pass
        with tempfile.TemporaryDirectory(prefix=".registry-", dir=directory) as folder:
            new = os.path.join(folder, "new.db")
            os.close(os.open(new, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_NOFOLLOW, 0o600))
            _fill(new)
            with contextlib.suppress(FileExistsError):
                os.link(new, path)
            _synchronise(directory)
        _check_file(path)
    except OSError as error:
        kind = BackendPermissionError if isinstance(error, PermissionError) else BackendError
        raise kind(f"{path}: no registry can be made there: {error.strerror}") from None
    except sqlite3.Error as error:
        raise BackendError(f"{path}: no registry can be made there: {error}") from None


def _fill(path: str) -> None:
    connection = _connect(path)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
    connection.close()
    engine = sa.create_engine(
        "sqlite://", creator=lambda: _connect(path), poolclass=NullPool, future=True
    )
    try:
        with engine.connect() as opened, opened.begin():
            _create(opened)
    except exc.DBAPIError as error:
        raise BackendError(f"{path}: no registry can be made there: {error.orig}") from None
    finally:
        engine.dispose()


def _synchronise(directory: str) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _check_directory(directory: str) -> None:
    """Refuse a directory in which somebody else could put another file in the place of ours."""
    found = os.stat(directory)
    if found.st_uid not in (0, os.geteuid()):
        raise BackendPermissionError(
            f"{directory}: it belongs to user {found.st_uid}, who could replace the registry"
        )
    if found.st_mode & 0o022:
        raise BackendPermissionError(
            f"{directory}: others may write there and could replace the registry; "
            f"run: chmod go-w {directory}"
        )


def _check_file(path: str) -> None:
    found = os.lstat(path)
    if stat.S_ISLNK(found.st_mode):
        raise BackendPermissionError(f"{path}: a symbolic link; name the file itself")
    if not stat.S_ISREG(found.st_mode):
        raise BackendPermissionError(f"{path}: no regular file")
    if found.st_uid != os.geteuid():
        raise BackendPermissionError(
            f"{path}: it belongs to user {found.st_uid}, not to {os.geteuid()} who runs this"
        )
    if found.st_mode & 0o077:
        raise BackendPermissionError(f"{path}: others may read or write it; run: chmod 600 {path}")

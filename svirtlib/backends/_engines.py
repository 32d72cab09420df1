"""SQLAlchemy's engines for the registry's stores, and what their errors mean.

A file of SQLite is made here, and refused where others could have written it.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import stat
import tempfile
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event, exc
from sqlalchemy.engine import URL, make_url
from sqlalchemy.pool import NullPool

from svirtlib.backends._tables import create_tables
from svirtlib.errors import (
    BackendDataError,
    BackendError,
    BackendPermissionError,
    BackendUnavailableError,
    SelectionError,
    quote,
)

__all__ = [
    "APPLICATION_ID",
    "PATIENCE",
    "first_line",
    "is_postgresql_itself",
    "is_worth_another_try",
    "parse_url",
    "postgresql_engine",
    "prepare_file",
    "sqlite_engine",
    "state_of",
]

#: "svlb": tells a registry from other SQLite files (PRAGMA application_id).
APPLICATION_ID = 0x73766C62

#: Seconds to wait for others who write.
PATIENCE = 30


def is_postgresql_itself(connection: Any) -> bool:
    """Tell the server from others that speak its protocol, and whose advisory locks may not."""
    version = str(connection.execute(sa.text("SELECT version()")).scalar())
    # "PostgreSQL 15.1-YB-2.21" is YugabyteDB.
    return version.startswith("PostgreSQL ") and "-YB-" not in version


def state_of(error: exc.DBAPIError) -> str:
    """Return PostgreSQL's SQLSTATE, or nothing."""
    original = error.orig
    return getattr(original, "sqlstate", None) or getattr(original, "pgcode", None) or ""


def is_worth_another_try(error: exc.DBAPIError) -> bool:
    """Tell whether other clients made a transaction fail."""
    # Serialization failure, deadlock; a table or type that another client made meanwhile.
    return state_of(error) in ("40001", "40P01", "42P07", "42710", "23505")


def first_line(error: exc.SQLAlchemyError) -> str:
    """Return the first line of what the database's driver said."""
    original = getattr(error, "orig", None) or error
    lines = str(original).strip().splitlines()
    return lines[0] if lines else type(original).__name__


def parse_url(url: str) -> URL:
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


def postgresql_engine(url: URL) -> Any:
    """Return an engine for a PostgreSQL server, or say which driver is missing."""
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
            connect_args={"connect_timeout": PATIENCE},
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
    cursor.execute(f"SET lock_timeout = '{PATIENCE}s'")
    cursor.execute("SET idle_in_transaction_session_timeout = '60s'")
    cursor.close()
    connection.commit()


def sqlite_engine(path: str) -> Any:
    """Return an engine for a file that :func:`prepare_file` has seen."""

    def connect() -> sqlite3.Connection:
        connection = _connect(path)
        try:
            if connection.execute("PRAGMA application_id").fetchone()[0] != APPLICATION_ID:
                raise BackendDataError(f"{path} is no registry; name another file")
        except BaseException:
            connection.close()
            raise
        return connection

    return sa.create_engine("sqlite://", creator=connect, poolclass=NullPool, future=True)


def _connect(path: str) -> sqlite3.Connection:
    # isolation_level=None: the driver begins no transactions of its own.
    connection = sqlite3.connect(path, timeout=PATIENCE, isolation_level=None)
    try:
        # In WAL mode NORMAL may lose the last transactions when the power fails.
        connection.execute("PRAGMA synchronous = FULL")
    except BaseException:
        connection.close()
        raise
    return connection


def prepare_file(path: str) -> None:
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
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.close()
    engine = sa.create_engine(
        "sqlite://", creator=lambda: _connect(path), poolclass=NullPool, future=True
    )
    try:
        with engine.connect() as opened, opened.begin():
            create_tables(opened)
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

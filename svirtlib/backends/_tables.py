"""The registry's tables, and what stands in their rows."""

from __future__ import annotations

import hashlib
from typing import Any

import sqlalchemy as sa

from svirtlib.errors import BackendDataError, InvalidLevelError
from svirtlib.mls import Level
from svirtlib.registry import Reservation

__all__ = [
    "DOMAIN",
    "OBSERVATION",
    "OTHERS",
    "RESERVATION",
    "SCHEMA_VERSION",
    "TAKEN",
    "VERSION",
    "create_tables",
    "key_of",
    "level_of",
    "reservation_of",
    "row_of",
]

SCHEMA_VERSION = 1

#: Longest text of a level in a key.
LONGEST_KEY = 200

METADATA = sa.MetaData()
VERSION = sa.Table("svirt_registry", METADATA, sa.Column("version", sa.Integer, primary_key=True))
DOMAIN = sa.Table("svirt_domain", METADATA, sa.Column("name", sa.String(200), primary_key=True))
RESERVATION = sa.Table(
    "svirt_reservation",
    METADATA,
    sa.Column("domain", sa.String(200), primary_key=True),
    sa.Column("key", sa.String(LONGEST_KEY), primary_key=True),
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
OBSERVATION = sa.Table(
    "svirt_observation",
    METADATA,
    sa.Column("domain", sa.String(200), primary_key=True),
    sa.Column("key", sa.String(LONGEST_KEY), primary_key=True),
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
    for table in (RESERVATION.c, OBSERVATION.c):
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
            for table in (RESERVATION.c, OBSERVATION.c)
        )
    )


#: Asked at each allocation; made once, for making them takes longer than the answer.
OTHERS = _others()
TAKEN = _taken()


def row_of(reservation: Reservation) -> dict[str, Any]:
    """Return what a row says of a reservation; what its level adds, the caller does."""
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


def reservation_of(row: Any) -> Reservation:
    """Return the reservation that stands in a row."""
    return Reservation(
        level=level_of(row.level),
        domain=row.domain,
        owner=row.owner,
        name=row.name,
        purpose=row.purpose,
        host=row.host,
        created=row.created,
        expires=row.expires,
    )


def level_of(text: str) -> Level:
    """Return the level that a row names."""
    try:
        return Level.parse(text)
    except InvalidLevelError as error:
        raise BackendDataError(f"the registry holds what is no level: {error}") from None


def key_of(level: Level) -> str:
    """Return what tells a level in a key."""
    text = str(level)
    if len(text) <= LONGEST_KEY:
        return text
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


def create_tables(connection: Any) -> None:
    """Make the tables of this version."""
    METADATA.create_all(connection)
    connection.execute(sa.insert(VERSION), [{"version": SCHEMA_VERSION}])

"""A query of the user's in a PostgreSQL database: distinct inputs go there together, in a transaction that only reads.

Kept answers are in answers.py.
"""

from __future__ import annotations

import ssl
import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from datetime import date, datetime, time, timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, unquote, urlsplit

import msgspec
import xxhash
from pydantic import BaseModel, ConfigDict, Field

from cdp_resources.look_ups.answers import Answered, TimeToLive
from cdp_resources.look_ups.tables import LookUpError
from cdp_resources.secrets import MissingSecretError, SecretRef

if TYPE_CHECKING:
    import pg8000.native

CHUNK_ROWS = 10_000
"""Distinct inputs in one question."""
_OURS_TO_MEND = ("28", "3D", "42")
"""Classes of SQLSTATE that no waiting mends: who we are, which database, what the query says."""
_NEAR = ("localhost", "127.0.0.1", "::1")


class Database(BaseModel):
    """A PostgreSQL database."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    url: SecretRef
    """Its address: `postgresql://user:password@host:5432/name`. Encrypted, except on this machine; `?sslmode=verify-full` also proves
    whom it speaks to, `disable` does neither."""
    timeout_seconds: float = Field(default=30.0, gt=0, le=3600)
    """How long one question may take."""
    time_to_live: TimeToLive = timedelta(days=1)
    """How long an answer is kept before it is asked for again."""

    def identity(self, sql: str) -> str:
        """Whose answers these are."""
        return xxhash.xxh3_128_hexdigest(msgspec.json.encode([self.url.env, sql]))


def ask_database(database: Database, sql: str, rows: Sequence[Mapping[str, str | None]]) -> Iterator[tuple[int, Answered | None]]:
    """(place, answer) for each row of the table `inputs` that the query reads: a JSON list of the rows found, as objects of text.

    None for those that could not be had, because the database is down, busy or slow. Raises LookUpError for what only we can mend.
    """
    import pg8000.native  # here, since every process that reads declarations loads this module

    try:
        with closing(_connection(database)) as connection:
            connection.run("set session characteristics as transaction read only")
            connection.run(f"set statement_timeout = {int(database.timeout_seconds * 1000)}")
            for start in range(0, len(rows), CHUNK_ROWS):
                part = rows[start : start + CHUNK_ROWS]
                yield from ((start + place, answered) for place, answered in enumerate(_ask(connection, sql, part)))
    except pg8000.native.DatabaseError as error:
        told = error.args[0] if error.args and isinstance(error.args[0], dict) else {}
        state = str(told.get("C", "unknown"))
        if state.startswith(_OURS_TO_MEND):
            raise LookUpError(f"the database {database.url.env} refuses the query: SQLSTATE {state}") from None
    except MissingSecretError as error:
        raise LookUpError(str(error)) from None
    except (pg8000.native.InterfaceError, OSError, struct.error):
        return


def _connection(database: Database) -> pg8000.native.Connection:
    import pg8000.native

    parts = urlsplit(database.url.resolve())
    if parts.scheme not in ("postgresql", "postgres") or not parts.username:
        raise LookUpError(f"{database.url.env} is no address of a database; write postgresql://user:password@host:5432/name")
    host = parts.hostname or "localhost"
    mode = parse_qs(parts.query).get("sslmode", ["disable" if host in _NEAR else "require"])[0]
    context = None if mode == "disable" else ssl.create_default_context()
    if context is not None and mode != "verify-full":  # encrypted, as libpq understands `require`
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return pg8000.native.Connection(
        unquote(parts.username),
        host=host,
        port=parts.port or 5432,
        database=parts.path.removeprefix("/") or None,
        password=unquote(parts.password) if parts.password else None,
        ssl_context=context,
        timeout=database.timeout_seconds,
        application_name="open-cdp",
    )


def _ask(connection: pg8000.native.Connection, sql: str, rows: Sequence[Mapping[str, str | None]]) -> list[Answered]:
    names = list(rows[0])
    given = ", ".join(f"cast(${number} as text[])" for number in range(1, len(names) + 1))
    quoted = ", ".join(f'"{name}"' for name in names)
    # The driver's own parameters begin with a colon, which casts in the user's query have too: so this goes in by number.
    question = f"with inputs as (select * from unnest({given}) as given({quoted})) select * from ({sql}\n) as answer"  # noqa: S608
    done = connection.execute_unnamed(question, [[row[name] for row in rows] for name in names])
    columns = [str(each["name"]) for each in done.columns]
    if missing := [name for name in names if name not in columns]:
        raise LookUpError(f"the query does not give the input {missing[0]!r} back; it gives {', '.join(columns)}")
    found: dict[tuple[str | None, ...], list[dict[str, str | None]]] = {}
    for values in done.rows:
        row = dict(zip(columns, map(_text, values), strict=True))
        found.setdefault(tuple(row[name] for name in names), []).append(row)
    return [Answered(msgspec.json.encode(found.get(tuple(row[name] for name in names), [])).decode()) for row in rows]


def _text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, dict | list):
        return msgspec.json.encode(value).decode()
    return str(value)

"""Connections to a declared database, and its errors told without its data."""

from __future__ import annotations

import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa

from cdp_resources.secrets import SecretRef
from cdp_resources.sources.unavailable import SourceUnavailableError

_NAMES_ONLY = ("08", "28", "3D", "3F", "42", "55", "57")
"""Classes of SQLSTATE whose message names things of the schema, never values: connection, authorization, unknown names, state of objects."""
_CONNECT_SECONDS = 15
_ANSWER_SECONDS = 3_600
"""Longest time without a word of an answer: what a slot holds is decoded from the log before the first of it is told."""


def engine_of(url: SecretRef) -> sa.Engine:
    """The engine for an address. Raises MissingSecretError, SourceUnavailableError."""
    try:
        address = sa.make_url(url.resolve())
    except sa.exc.ArgumentError:
        raise SourceUnavailableError(
            f"url: {url.env} holds no address, such as postgresql://user:password@host/database"
        ) from None
    arguments: dict[str, Any] = {}
    if address.drivername in ("postgresql", "postgres", "postgresql+pg8000"):
        arguments = {"timeout": _CONNECT_SECONDS, "application_name": "cdp"}
        context = _tls(address.query)
        if context is not None:
            arguments["ssl_context"] = context
        address = address.set(drivername="postgresql+pg8000").difference_update_query(["sslmode", "sslrootcert"])
    try:
        engine = sa.create_engine(address, connect_args=arguments, poolclass=sa.pool.NullPool)
    except (sa.exc.ArgumentError, ImportError):
        raise SourceUnavailableError(f"url: there is no driver for {address.drivername}; install it beside open-cdp") from None
    if arguments:
        sa.event.listen(engine, "connect", _wait_longer)
    return engine


def _wait_longer(connection: Any, _record: object) -> None:
    """pg8000 keeps the time-out of connecting for every answer."""
    connection._usock.settimeout(_ANSWER_SECONDS)


def _tls(query: Mapping[str, Any]) -> ssl.SSLContext | None:
    """What libpq's `sslmode` asks for."""
    mode = str(query.get("sslmode", "disable"))
    if mode in ("disable", "allow", "prefer"):
        return None
    context = ssl.create_default_context(cafile=str(query["sslrootcert"]) if "sslrootcert" in query else None)
    context.check_hostname = mode == "verify-full"
    if mode == "require":
        context.verify_mode = ssl.CERT_NONE
    return context


@contextmanager
def told_safely() -> Iterator[None]:
    """Errors of the database in the body as SourceUnavailableError. Their own words may repeat rows."""
    try:
        yield
    except sa.exc.DBAPIError as error:
        raise SourceUnavailableError(_words(error)) from None
    except (sa.exc.SQLAlchemyError, OSError) as error:
        raise SourceUnavailableError(f"the database cannot be read: {type(error).__name__}") from None


def _words(error: sa.exc.DBAPIError) -> str:
    told = error.orig.args[0] if error.orig is not None and error.orig.args else None
    if isinstance(told, dict):  # pg8000
        state = str(told.get("C", ""))
        said = f": {told.get('M')}" if state.startswith(_NAMES_ONLY) else ""
        return f"the database answered SQLSTATE {state}{said}"
    kind = type(error.orig).__name__ if error.orig is not None else type(error).__name__
    return f"the database cannot be read: {kind}"

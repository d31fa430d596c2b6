"""Rows of an endpoint, page by page, through dlt's REST source, which tries again after 429 (as Retry-After says) and failures of the server."""

from __future__ import annotations

import re
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any, Protocol

from pydantic import BaseModel

from cdp_resources.secrets import SecretRef
from cdp_resources.sources.cursors import CursorValue, latest
from cdp_resources.sources.dlt_library import make_ready
from cdp_resources.sources.extract import Extracted
from cdp_resources.sources.unavailable import SourceUnavailableError

_ATTEMPTS = 5
_LONGEST_WAIT_SECONDS = 120
_TIMEOUT_SECONDS = 60


class Endpoint(Extracted, Protocol):
    """An endpoint that is read."""

    @property
    def path(self) -> str | None: ...
    @property
    def params(self) -> Mapping[str, Any]: ...
    @property
    def records(self) -> str | None: ...
    @property
    def may_lack_records(self) -> bool: ...
    @property
    def pagination(self) -> BaseModel | None: ...
    @property
    def cursor_param(self) -> str | None: ...


class Api(Protocol):
    """An API that is read."""

    @property
    def base_url(self) -> str: ...
    @property
    def auth(self) -> BaseModel | None: ...
    @property
    def headers(self) -> Mapping[str, str]: ...
    @property
    def pagination(self) -> BaseModel: ...


def rows(api: Api, name: str, declared: Endpoint, start: CursorValue | None, folder: Path) -> Generator[object]:
    """The rows of an endpoint whose cursor is at `start` or above. `folder` is dlt's. Raises MissingSecretError, SourceUnavailableError."""
    make_ready(folder)
    import requests
    from dlt.common.exceptions import DltException
    from dlt.sources.helpers.requests import Client
    from dlt.sources.rest_api import rest_api_source

    client = Client(
        request_timeout=_TIMEOUT_SECONDS, request_max_attempts=_ATTEMPTS, request_max_retry_delay=_LONGEST_WAIT_SECONDS
    )
    config: Any = {
        "client": {
            "base_url": api.base_url,
            "headers": dict(api.headers),
            "auth": _resolved(api.auth) if api.auth is not None else None,
            "paginator": _paginator(declared.pagination or api.pagination),
            "session": client.session,
        },
        "resources": [{"name": name, "endpoint": _endpoint(name, declared, start)}],
    }
    try:
        yield from rest_api_source(config, name="api").resources[name]
    except (requests.RequestException, DltException) as error:
        innermost = _innermost(error)
        said = str(innermost) if isinstance(innermost, SourceUnavailableError) else _words(error)
        raise SourceUnavailableError(f"{declared.path or name}: {said}") from None
    finally:
        client.session.close()


def _endpoint(name: str, declared: Endpoint, start: CursorValue | None) -> dict[str, Any]:
    endpoint: dict[str, Any] = {"path": declared.path or name, "params": dict(declared.params)}
    if declared.records is not None:
        endpoint["data_selector"] = declared.records if declared.may_lack_records else _selector(declared.records)
    if declared.cursor is not None:
        incremental: dict[str, Any] = {
            "cursor_path": declared.cursor,
            "initial_value": start,
            "last_value_func": latest,
            "on_cursor_value_missing": "include",
            "primary_key": [],
        }
        if declared.cursor_param is not None and start is not None:
            incremental["start_param"] = declared.cursor_param
        endpoint["incremental"] = incremental
    return endpoint


def _selector(records: str) -> Any:
    """The path of the rows, which raises SourceUnavailableError for an answer that lacks it: dlt would take an error told with 200 for an empty page.

    Of a path with brackets or stars, what stands before the first has to be there: no rows below it are an empty page.
    """
    from dlt.common.jsonpath import compile_path
    from jsonpath_ng import JSONPath

    whole = compile_path(records)
    beginning = compile_path(re.split(r"[\[*]|\.\.", records)[0].rstrip(".") or "$")

    class Rows(JSONPath):
        """As dlt reads an answer."""

        def find(self, answer: Any) -> Any:
            if not beginning.find(answer):
                raise SourceUnavailableError(
                    f"records: the answer has no {records}; may_lack_records: true would take it for an empty page"
                )
            return whole.find(answer)

    return Rows()


def _paginator(declared: BaseModel) -> dict[str, Any]:
    told = {name: value for name, value in declared.model_dump().items() if value is not None}
    if declared.model_dump().get("total_path", "") is None:
        told["total_path"] = None
    return told


def _resolved(auth: BaseModel) -> dict[str, Any]:
    """The declaration with its secrets in place of their references."""
    told = {name: getattr(auth, name) for name in type(auth).model_fields}
    return {name: value.resolve() if isinstance(value, SecretRef) else value for name, value in told.items()}


def _words(error: Exception) -> str:
    """What went wrong, without addresses and bodies: they hold parameters and rows."""
    answer = getattr(error, "response", None)
    if answer is None:
        cause: BaseException | None = error
        while cause is not None and getattr(cause, "response", None) is None:
            cause = cause.__cause__ or cause.__context__
        answer = getattr(cause, "response", None)
    if answer is not None:
        answer.close()  # its body was not read
        return (
            f"the API answered {answer.status_code} after {_ATTEMPTS} attempts"
            if answer.status_code >= 429
            else f"the API answered {answer.status_code}"
        )
    return f"the API cannot be read: {type(_innermost(error)).__name__}"


def _innermost(error: BaseException) -> BaseException:
    while (deeper := error.__cause__ or error.__context__) is not None:
        error = deeper
    return error

"""Webhook: records are posted as JSON to an address of the user's, signed if a secret is declared.

Body: `{"sync", "operation": "upsert" | "delete", "rows": [{"key", "fields"}]}`. The answer may judge each row:
`{"results": [{"key", "status": "ok" | "retry" | "refused", "reason"}]}`; rows it does not name share the status of the whole.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from typing import Annotated

import msgspec
from pydantic import AfterValidator, Field

from cdp_resources.destinations.batch import Batch, Verdict, reason_code, verdict_of_status
from cdp_resources.destinations.plugin import HttpPlugin, Secrets, Settings
from cdp_resources.http import Answer, Request
from cdp_resources.secrets import ADDRESS, SecretAddress, SecretRef, is_address

_OWN_HEADERS = ("authorization", "content-type", "content-length", "host", "idempotency-key", "x-cdp-signature")


def _address(value: str) -> str:
    if not is_address(value):
        raise ValueError(f"an address is {ADDRESS}; a secret address is given as {{env: NAME}}")
    return value


def _public_headers(value: dict[str, str]) -> dict[str, str]:
    for name in value:
        if not re.fullmatch(r"[A-Za-z0-9-]+", name) or name.lower() in _OWN_HEADERS:
            raise ValueError(f"header {name!r} cannot be set here; use `authorization` for credentials")
    return value


class WebhookSettings(Settings):
    """Where and how records are posted."""

    url: Annotated[str, AfterValidator(_address)] | SecretAddress
    """Address, or the environment variable that holds it where the address itself is a secret or differs between machines."""
    authorization: SecretRef | None = None
    """The whole value of the `Authorization` header, such as `Bearer …`."""
    signing_secret: SecretRef | None = None
    """Key of the signature: `X-CDP-Signature: sha256=<HMAC-SHA256 of the body, in hexadecimal>`."""
    headers: Annotated[dict[str, str], AfterValidator(_public_headers)] = Field(default_factory=dict)
    """Other headers to send, not secret."""


def to_requests(batch: Batch, settings: WebhookSettings, secrets: Secrets) -> list[Request]:
    """One request with all rows of the batch."""
    rows: list[dict[str, object]] = [
        {"key": row.key, "fields": msgspec.Raw((row.payload or "{}").encode())} for row in batch.rows
    ]
    return [_request(batch, rows, settings, secrets)]


def to_deletion(batch: Batch, settings: WebhookSettings, secrets: Secrets) -> list[Request]:
    """One request with the keys to remove."""
    return [_request(batch, [{"key": row.key} for row in batch.rows], settings, secrets)]


def _request(batch: Batch, rows: list[dict[str, object]], settings: WebhookSettings, secrets: Secrets) -> Request:
    body = msgspec.json.encode({"sync": batch.sync, "operation": batch.operation, "rows": rows})
    headers = {**settings.headers, "Content-Type": "application/json", "Idempotency-Key": batch.idempotency_key}
    if settings.authorization is not None:
        headers["Authorization"] = secrets["authorization"]
    if settings.signing_secret is not None:
        digest = hmac.new(secrets["signing_secret"].encode(), body, hashlib.sha256).hexdigest()
        headers["X-CDP-Signature"] = f"sha256={digest}"
    url = settings.url if isinstance(settings.url, str) else secrets["url"]
    return Request("POST", url, headers, body, tuple(row.key for row in batch.rows))


class _Result(msgspec.Struct):
    key: str
    status: str
    reason: object = None


class _Results(msgspec.Struct):
    results: list[_Result]


_VERDICTS = {"ok": "delivered", "delivered": "delivered", "retry": "retry", "refused": "refused"}


def outcome(request: Request, answer: Answer) -> list[Verdict]:
    """Verdicts per row from `results` where the answer has them, else from the status of the whole."""
    assert answer.status is not None
    whole = [verdict_of_status(key, answer.status) for key in request.rows]
    if not 200 <= answer.status <= 299 or not answer.body:
        return whole
    try:
        results = msgspec.json.decode(answer.body, type=_Results).results
    except (msgspec.DecodeError, UnicodeDecodeError):
        return whole
    named = {each.key: each for each in results}
    return [_verdict(named[verdict.key]) if verdict.key in named else verdict for verdict in whole]


def _verdict(result: _Result) -> Verdict:
    kind = _VERDICTS.get(result.status, "refused")
    if kind == "delivered":
        return Verdict(result.key, "delivered")
    if kind == "retry":
        return Verdict(result.key, "retry", reason_code(result.reason, "retry"))
    return Verdict(result.key, "refused", reason_code(result.reason, "refused_by_destination"))


PLUGIN = HttpPlugin(
    settings=WebhookSettings,
    modes=("upsert", "mirror"),
    max_batch_rows=1_000,
    to_requests=to_requests,
    to_deletion=to_deletion,
    outcome=outcome,
    example={"url": "https://example.org/hooks/cdp", "signing_secret": {"env": "CDP_WEBHOOK_SECRET"}},
)

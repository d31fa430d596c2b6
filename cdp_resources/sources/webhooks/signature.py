"""Whether a delivery was signed by who knows the secret, and lately. Pure: the time is given, and nothing is kept."""

from __future__ import annotations

import base64
import hmac
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from string import Formatter

from cdp_resources.sources.webhooks.declared import Signature, SignedTime

_MAX_SIGNATURES = 16
"""Signatures of one delivery that are looked at; a vendor sends one for each of its secrets, two or three."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_TIME = re.compile(r"[0-9]{1,15}")


@dataclass(frozen=True)
class Delivery:
    """One request of a vendor, as it came."""

    method: str
    query: str
    """Of the request line, without its question mark."""
    headers: Mapping[str, str]
    """By lower-case name."""
    body: bytes


class RefusedDeliveryError(Exception):
    """The delivery is not proven to be the vendor's, or not new; `code` is one of REASONS."""

    def __init__(self, code: str) -> None:
        super().__init__(REASONS[code])
        self.code = code


REASONS = {
    "no_signature": "the header with the signature is missing, or holds none",
    "no_timestamp": "the time of signing is missing, or cannot be read",
    "no_id": "the header with the id, which is signed too, is missing",
    "wrong_signature": "the signature does not fit the request and the secret",
    "stale_timestamp": "the request was signed too long ago, or in the future",
}


class Verifier:
    """Checks the deliveries of one source against its secrets, each of which is good."""

    def __init__(self, declared: Signature, secrets: Sequence[str], url: str) -> None:
        """`url` is the address that the vendor calls, needed where {uri} is signed. Raises BadKeyError."""
        self._declared = declared
        self._keys = [declared.key_of(secret) for secret in secrets]
        self._url = url
        self._parts = [(text.encode(), name) for text, name, _, _ in Formatter().parse(declared.signed)]

    def signed(self, delivery: Delivery, now: datetime) -> bytes:
        """What was signed, once it is proven. Raises RefusedDeliveryError."""
        declared = self._declared
        given = _parts(delivery.headers.get(declared.header.lower()), declared.separator, declared.prefix)
        if not given:
            raise RefusedDeliveryError("no_signature")
        text = self._time(delivery)
        signed = self._signed(delivery, text)
        expected = [_written(declared, key, signed) for key in self._keys]
        # Every pair is compared, each in constant time: how long it takes tells nothing about which byte was wrong.
        matches = [hmac.compare_digest(each, one) for each in expected for one in given[:_MAX_SIGNATURES]]
        if not any(matches):
            raise RefusedDeliveryError("wrong_signature")
        if declared.timestamp is not None and _is_stale(declared.timestamp, text, now):
            raise RefusedDeliveryError("stale_timestamp")
        return signed

    def _time(self, delivery: Delivery) -> str:
        """The time of signing, as it is written; empty where none is declared."""
        time = self._declared.timestamp
        if time is None:
            return ""
        separator = self._declared.separator if time.prefix else None
        found = _parts(delivery.headers.get(time.header.lower()), separator, time.prefix)
        text = found[0].decode("latin-1") if found else ""
        if not _TIME.fullmatch(text):
            raise RefusedDeliveryError("no_timestamp")
        return text

    def _signed(self, delivery: Delivery, time: str) -> bytes:
        declared = self._declared
        values = {"body": delivery.body, "timestamp": time.encode(), "method": delivery.method.encode()}
        if declared.id_header is not None:
            id_ = delivery.headers.get(declared.id_header.lower())
            if not id_:
                raise RefusedDeliveryError("no_id")
            values["id"] = id_.encode("latin-1")
        if "uri" in declared.signed_names:
            uri = self._url + (f"?{delivery.query}" if delivery.query else "")
            values["uri"] = _decoded(uri, declared.uri_decoded).encode("latin-1")
        return b"".join(text + (values[name] if name is not None else b"") for text, name in self._parts)


def _parts(value: str | None, separator: str | None, prefix: str) -> list[bytes]:
    """The parts of a header that begin with the prefix, without it."""
    if not value:
        return []
    parts = value.split(separator) if separator is not None else [value]
    return [part[len(prefix) :].encode("latin-1") for part in parts if part.startswith(prefix) and part != prefix]


def _written(declared: Signature, key: bytes, signed: bytes) -> bytes:
    """The signature as the vendor writes it: texts are compared, so that no other spelling of the same bytes passes."""
    digest = hmac.digest(key, signed, declared.algorithm)
    return digest.hex().encode() if declared.encoding == "hex" else base64.b64encode(digest)


def _is_stale(time: SignedTime, text: str, now: datetime) -> bool:
    at = int(text) // (1000 if time.unit == "milliseconds" else 1)
    return abs((now - _EPOCH) // timedelta(seconds=1) - at) > time.tolerance_seconds


def _decoded(uri: str, characters: str) -> str:
    for character in characters:
        escaped = f"%{ord(character):02X}"
        uri = uri.replace(escaped, character).replace(escaped.lower(), character)
    return uri

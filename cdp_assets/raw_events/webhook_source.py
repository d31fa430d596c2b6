"""What a user declares about a source of kind `webhook`: a vendor that posts signed deliveries to /v1/webhooks/<source>.

How vendors sign and what payloads become is in cdp_resources/sources/webhooks; receiving is in cdp_server.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, ValidationError, WithJsonSchema, model_validator

from cdp_assets.declaration import Declaration
from cdp_assets.declaration_errors import no_such
from cdp_resources.secrets import SecretRef
from cdp_resources.sources import webhooks
from cdp_resources.sources.webhooks.declared import Path, Rule, Signature, Value


def _vendor(value: str) -> str:
    if value not in webhooks.vendors():
        raise ValueError(no_such("vendor", value, webhooks.vendors()))
    return value


Vendor = Annotated[str, AfterValidator(_vendor), WithJsonSchema({"type": "string", "enum": list(webhooks.vendors())})]
"""A folder of cdp_resources/sources/webhooks."""


class WebhookSource(Declaration):
    """Events that a vendor posts, each delivery proven by its signature."""

    kind: Literal["webhook"]
    """Signed deliveries arrive at /v1/webhooks/<source>."""
    description: str = ""
    """Whose webhooks these are, for people."""
    vendor: Vendor | None = None
    """Who sends them, if it is one of those that are known; then nothing but `secrets` is needed."""
    secrets: tuple[SecretRef, ...]
    """The secrets that deliveries may be signed with, by reference: `[{env: CDP_STRIPE_SECRET}]`. All of them are good at the same
    time, so that one can be replaced without a gap."""
    url: str = ""
    """The address that the vendor calls, without a query; needed where the address is signed too, as by HubSpot."""
    signature: Signature | None = None
    """How deliveries are signed; needed without a vendor, else in place of the vendor's."""
    items: Path | None = None
    """The list in the payload whose elements become a message each; by default the vendor's."""
    id: Path | None = None
    """The id of an event; by default the vendor's, else what was signed. Equal ids are one event."""
    topic: Path | None = None
    """What kind of event it is; needed without a vendor, else by default the vendor's."""
    rules: tuple[Rule, ...] = ()
    """What becomes of which kind. The first rule that fits counts, and those here come before the vendor's."""
    fields: dict[str, Value] = Field(default_factory=dict)
    """Put into every message of the vendor's rules, in place of what they say: `{userId: body.customer.note}`."""
    enabled: bool = True
    """A source that is not enabled answers 404."""
    max_event_bytes: int = Field(default=262_144, ge=1_024, le=1_048_576)
    """Longest message, in bytes of its JSON. What makes a longer one is kept in rejected_events."""
    max_batch_bytes: int = Field(default=1_048_576, ge=1_024, le=67_108_864)
    """Longest request body, in bytes. A longer one is answered 413."""
    max_events_per_second: float | None = Field(default=None, gt=0)
    """Most events a second that each collector process lets in, over time; beyond it requests are answered 429 with Retry-After.
    Null for no limit."""

    @model_validator(mode="after")
    def _can_be_read(self) -> Self:
        if not self.secrets:
            raise ValueError("secrets: at least one is needed, such as [{env: CDP_STRIPE_SECRET}]")
        if self.vendor is None:
            for name in ("signature", "topic", "rules"):
                if not getattr(self, name):
                    raise ValueError(f"without a vendor, {name} is needed; vendors are {', '.join(webhooks.vendors())}")
            if self.fields:
                raise ValueError("fields go over the rules of a vendor; without one, write them in each rule")
        if "uri" in self.webhook.signature.signed_names and not re.fullmatch(r"https?://[^\s/@?#]+/[^\s?#]*", self.url):
            raise ValueError("the vendor signs the address that it calls: write it as `url`, https://host/v1/webhooks/<source>")
        return self

    @property
    def webhook(self) -> webhooks.Webhook:
        """How deliveries are read: what is declared here, over what the vendor's folder says."""
        known = webhooks.vendor(self.vendor) if self.vendor is not None else None
        signature = self.signature or (known.signature if known else None)
        topic = self.topic or (known.topic if known else None)
        assert signature is not None
        assert topic is not None
        return webhooks.Webhook(
            signature=signature,
            items=self.items or (known.items if known else None),
            id=self.id or (known.id if known else None),
            topic=topic,
            rules=(*self.rules, *self._vendor_rules()),
        )

    def _vendor_rules(self) -> tuple[Rule, ...]:
        """Raises ValueError for fields that no message can have."""
        rules = webhooks.vendor(self.vendor).rules if self.vendor is not None else ()
        try:
            return tuple(rule.with_fields(self.fields) for rule in rules) if self.fields else rules
        except ValidationError as error:
            raise ValueError(error.errors()[0]["msg"].removeprefix("Value error, ")) from None

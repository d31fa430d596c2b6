"""What can be said of a vendor's webhooks: how a delivery is signed, and how its payload becomes messages. Data, checked when it is read.

The same models are a vendor's `webhook.yaml` and the declaration of a user's own. Verifying and mapping are not here.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator, Mapping
from decimal import Decimal
from string import Formatter
from typing import Annotated, Any, Literal, Self

import jmespath
import jmespath.exceptions
from jmespath.functions import Functions
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StrictBool, StrictInt, StrictStr, model_validator

SCOPE = ("body", "item", "headers")
"""Where paths begin: the payload, its element that becomes a message (the payload itself without `items`), lower-case header names."""
SIGNED = ("method", "uri", "id", "timestamp", "body")
"""What `signed` may name."""

_TARGET = re.compile(
    r"userId|anonymousId|previousId|groupId|timestamp|event|name|category|properties|traits|context"
    r"|(properties|traits|context)(\.[A-Za-z0-9_$ -]+)+"
)
_TARGETS = "userId, anonymousId, previousId, groupId, timestamp, event, name, category, properties, traits, context and what is below them"
_AT_ROOT = {
    "subexpression",
    "index_expression",
    "projection",
    "value_projection",
    "filter_projection",
    "flatten",
    "pipe",
}
"""JMESPath nodes of which only the first child is looked up where the expression begins."""


def _path(value: str) -> str:
    try:
        parsed = jmespath.compile(value).parsed
    except jmespath.exceptions.LexerError as error:
        raise ValueError(f"no JMESPath expression: character {error.lex_position + 1}: {error.message}") from None
    except jmespath.exceptions.ParseError as error:
        raise ValueError(f"no JMESPath expression: something is wrong at character {error.lex_position + 1}") from None
    except jmespath.exceptions.JMESPathError:
        raise ValueError("no JMESPath expression: it is empty") from None
    for name in _beginnings(parsed):
        if name not in SCOPE:
            raise ValueError(f"paths begin with {', '.join(SCOPE)}; not with {name!r}")
    for name in _functions(parsed):
        if name not in Functions.FUNCTION_TABLE:
            raise ValueError(f"no function {name!r}; there are {', '.join(sorted(Functions.FUNCTION_TABLE))}")
    return value


def _functions(node: object) -> Iterator[str]:
    """The names of all functions that an expression calls."""
    if isinstance(node, dict):
        if node["type"] == "function_expression":
            yield node["value"]
        for child in node["children"]:
            yield from _functions(child)


def _beginnings(node: Mapping[str, Any]) -> Iterator[str]:
    """The names that an expression looks up where it begins."""
    if node["type"] == "field":
        yield node["value"]
    elif node["type"] in _AT_ROOT:
        yield from _beginnings(node["children"][0])
    elif node["type"] not in ("slice", "expref"):
        for child in node["children"]:
            yield from _beginnings(child)


Path = Annotated[str, AfterValidator(_path)]
"""A JMESPath expression that begins with `body`, `item` or `headers`: `body.data.object.id`."""


def _header(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9-]+", value):
        raise ValueError(f"{value!r} is no header's name")
    return value


Header = Annotated[str, AfterValidator(_header)]
"""A header's name; case does not matter."""


class BadKeyError(ValueError):
    """A secret is not what `key` says; the text holds nothing of it."""


class Declared(BaseModel):
    """Closed and immutable; an unknown field is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class SignedTime(Declared):
    """When the vendor says that it signed: what makes an old delivery refusable."""

    header: Header
    """The header that holds it."""
    prefix: str = ""
    """What stands before it, where the header holds several parts: `t=`."""
    unit: Literal["seconds", "milliseconds"] = "seconds"
    """Since 1970 UTC."""
    tolerance_seconds: int = Field(default=300, ge=1, le=86_400)
    """A delivery signed longer ago than this, or further ahead, is refused."""


class Signature(Declared):
    """How a delivery proves who sent it: an HMAC in a header, under a secret that both sides know."""

    header: Header
    """The header that holds the signature."""
    separator: str | None = Field(default=None, min_length=1, max_length=1)
    """What stands between the parts, where the header holds several; one good signature among them is enough."""
    prefix: str = ""
    """What stands before a signature: `sha256=`, `v1=`. Parts without it are passed over."""
    algorithm: Literal["sha256", "sha512", "sha1"] = "sha256"
    """The hash of the HMAC."""
    encoding: Literal["hex", "base64"] = "hex"
    """How the signature is written. Hexadecimal is in lower case."""
    signed: str = "{body}"
    """What is signed: a text with {body} (its bytes as sent), {timestamp}, {id}, {method}, {uri}: `{timestamp}.{body}`."""
    timestamp: SignedTime | None = None
    """When it was signed; must be among what is signed."""
    id_header: Header | None = None
    """The header that {id} stands for."""
    uri_decoded: str = ""
    """Characters that stand as themselves in {uri}, although the request line has them escaped."""
    key: Literal["text", "base64"] = "text"
    """Whether the secret is the key as it stands, or the key in base64."""
    key_prefix: str = ""
    """What is taken away from the front of a secret, when it is there: `whsec_`."""

    @model_validator(mode="after")
    def _parts_are_there(self) -> Self:
        names = self.signed_names
        for name in names:
            if name not in SIGNED:
                raise ValueError(f"signed: no part {{{name}}}; there are {', '.join(f'{{{each}}}' for each in SIGNED)}")
        if "body" not in names:
            raise ValueError("signed: {body} is missing; what is not signed could be changed")
        if ("timestamp" in names) != (self.timestamp is not None):
            raise ValueError(
                "signed: {timestamp} and the field timestamp belong together; a time that is not signed proves nothing"
            )
        if ("id" in names) != (self.id_header is not None):
            raise ValueError("signed: {id} and the field id_header belong together")
        return self

    @property
    def signed_names(self) -> list[str]:
        """The names in `signed`, in order. Raises ValueError when braces do not match."""
        return [name for _, name, _, _ in Formatter().parse(self.signed) if name is not None]

    def key_of(self, secret: str) -> bytes:
        """The key that a secret stands for. Raises BadKeyError."""
        text = secret.removeprefix(self.key_prefix)
        try:
            key = text.encode() if self.key == "text" else base64.b64decode(text, validate=True)
        except binascii.Error:
            raise BadKeyError("the secret is not base64") from None
        if not key:
            raise BadKeyError("the secret is empty")
        return key


class Scale(Declared):
    """A factor that depends on another value, such as the decimals of a currency."""

    path: Path
    """Where the other value stands."""
    map: dict[str, Decimal]
    """The other value, in lower case -> the factor."""
    default: Decimal
    """The factor for every other value."""


class PathValue(Declared):
    """A value taken from the delivery."""

    path: Path
    """Where it stands. What is not there, or null, is left out of the message."""
    type: Literal["as_is", "text", "integer", "number", "boolean", "timestamp"] = "as_is"
    """What it is turned into. What cannot be, refuses the message."""
    format: Literal["iso", "unix", "unix_ms"] | None = None
    """For timestamps: `iso` (default), `unix` (seconds) or `unix_ms`."""
    scale: Decimal | Scale | None = None
    """For integers and numbers: multiplied by this, exactly (`0.01` turns cents into units)."""
    prefix: str = ""
    """For texts: put in front of it, so that the ids of two vendors are never the same."""
    case: Literal["upper", "lower"] | None = None
    """For texts: written in capitals or small letters, as currency codes should be."""
    map: dict[str, StrictStr] = Field(default_factory=dict)
    """The vendor's word -> ours. A word that is not there is no value."""
    default: StrictBool | StrictInt | StrictStr | float | None = None
    """The value when there is none."""
    required: bool = False
    """Refuse the message when there is no value."""

    @model_validator(mode="after")
    def _options_fit_the_type(self) -> Self:
        if self.format is not None and self.type != "timestamp":
            raise ValueError(f"format belongs to type timestamp, not to {self.type}")
        if self.scale is not None and self.type not in ("integer", "number"):
            raise ValueError(f"scale belongs to types integer and number, not to {self.type}")
        for name in ("prefix", "case"):
            if getattr(self, name) and self.type != "text":
                raise ValueError(f"{name} belongs to type text, not to {self.type}")
        if self.map and self.type not in ("as_is", "text"):
            raise ValueError(f"map belongs to types as_is and text, not to {self.type}")
        return self


class FixedValue(Declared):
    """The same value in every message."""

    constant: StrictBool | StrictInt | StrictStr | float
    """The value."""


Value = Path | PathValue | FixedValue


class Rule(Declared):
    """What a delivery of certain kinds becomes."""

    topics: tuple[str, ...] = ()
    """The kinds it is for, as the vendor calls them; `customer.*` is all that begin so. Empty: every kind."""
    when: Path | None = None
    """A condition that must hold as well: `body.livemode`, `item.propertyName == 'email'`."""
    type: Literal["identify", "track", "page", "screen", "group", "alias"] = "track"
    """The message's type."""
    event: str | None = None
    """The event's name in every message; or map `event` to a path."""
    fields: dict[str, Value]
    """Place in the message -> a path, or where its value comes from. Places: userId, anonymousId, previousId, groupId, timestamp,
    event, name, category, and properties, traits, context as a whole and below."""

    @model_validator(mode="after")
    def _makes_messages(self) -> Self:
        for target, value in self.fields.items():
            if not _TARGET.fullmatch(target):
                raise ValueError(f"fields: no place {target!r} in a message; there are {_TARGETS}")
            if target == "context.webhook" or target.startswith("context.webhook."):
                raise ValueError("fields: context.webhook is filled by itself, with vendor, id and type")
            if target == "timestamp" and isinstance(value, PathValue) and value.type != "timestamp":
                raise ValueError("fields.timestamp: type is timestamp, with its format")
        for target in self.fields:
            above = [target[: dot.start()] for dot in re.finditer(r"\.", target)]
            inside = [name for name in above if name in self.fields and "." in name]
            if inside:
                raise ValueError(f"fields: {inside[0]!r} holds a value, so {target!r} cannot stand below it")
        if not set(self.fields) & {"userId", "anonymousId"} and not (self.type == "alias" and "previousId" in self.fields):
            raise ValueError("fields: map userId or anonymousId")
        if self.type == "track" and (self.event is None) == ("event" not in self.fields):
            raise ValueError("a track message needs its event: either `event` or fields.event")
        return self

    def with_fields(self, fields: Mapping[str, Value]) -> Rule:
        """The rule with these fields in place of its own. Raises ValueError for what cannot be."""
        event = None if "event" in fields else self.event
        return Rule(topics=self.topics, when=self.when, type=self.type, event=event, fields=self.fields | dict(fields))


class Webhook(Declared):
    """How one vendor's deliveries are read."""

    signature: Signature
    """How they are signed."""
    items: Path | None = None
    """The list in the payload whose elements become a message each. Without it the payload becomes one message."""
    id: Path | None = None
    """The vendor's id of the event: equal ids are one event, however often it is delivered. Without it, what was signed is the id."""
    topic: Path
    """What kind of event it is, in the vendor's word: `body.type`."""
    rules: tuple[Rule, ...]
    """What becomes of which kind; the first that fits counts. What none fits is kept in rejected_events."""

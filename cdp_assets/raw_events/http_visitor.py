"""What a user may declare about the visitors of an HTTP source: the id cookie, what is kept of requests, and do-not-track signals.

How it is done is in cdp_server/visitor.py.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from cdp_assets.declaration import Declaration

SECRET_HEADERS = ("authorization", "cookie", "proxy-authorization", "x-write-key")
"""Headers that hold keys, or more than was asked for."""

Token = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}$")]
"""A name as HTTP allows it for a header or cookie."""
Kept = Annotated[tuple[Token, ...], Field(max_length=8)]
"""At most eight names: what they hold is stored with every event."""


class IdCookie(Declaration):
    """A cookie that the collector sets, out of reach of scripts (HttpOnly). Its value is the anonymousId of messages that have none."""

    name: Token = "cdp_id"
    """Name of the cookie."""
    domain: Annotated[str, StringConstraints(pattern=r"^\.?[A-Za-z0-9.-]+$")] | None = None
    """Domain whose hosts all get it, such as `shop.example`; by default only the collector's own host."""
    max_age_days: int = Field(default=365, ge=1, le=400)
    """How long it is kept after the last request. Browsers cap it at 400 days."""
    same_site: Literal["strict", "lax", "none"] = "lax"
    """`lax` and `strict` for a collector on the site's own domain; `none` for one on another."""
    secure: bool = True
    """Whether it is only ever sent over HTTPS."""

    @model_validator(mode="after")
    def _none_is_secure(self) -> Self:
        if self.same_site == "none" and not self.secure:
            raise ValueError("same_site: none needs secure: true; browsers refuse the cookie otherwise")
        return self


Answer = Literal["ignore", "anonymous", "drop"]
"""`ignore`: as if it were not said. `anonymous`: neither address nor cookies are kept and no cookie is set. `drop`: answered 200, not kept."""


class Signals(Declaration):
    """What is done when a request says that its sender does not want to be tracked."""

    sp_anonymous: Answer = "anonymous"
    """For `Sp-Anonymous`, which Snowplow trackers send in their anonymous mode."""
    do_not_track: Answer = "ignore"
    """For `DNT: 1`, a browser setting."""
    global_privacy_control: Answer = "ignore"
    """For `Sec-GPC: 1`, a browser setting that some laws give force."""

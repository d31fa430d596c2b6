"""What a user declares about an API that is read: any REST API that answers JSON, page by page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field, StrictBool, StrictInt, StrictStr, field_validator

from cdp_assets.declaration import Declaration, Name
from cdp_assets.raw_events.profile_data import MayHoldProfileData
from cdp_assets.raw_events.pulled_source import PulledResource, PulledSource
from cdp_resources.secrets import SecretRef


class BearerAuth(Declaration):
    """A token in the header `Authorization`."""

    type: Literal["bearer"]
    """A bearer token."""
    token: SecretRef
    """The token, by reference."""


class BasicAuth(Declaration):
    """A name and a password."""

    type: Literal["http_basic"]
    """Basic authorization."""
    username: SecretRef
    """The name, by reference."""
    password: SecretRef
    """The password, by reference."""


class ApiKeyAuth(Declaration):
    """A key in a header or in the query."""

    type: Literal["api_key"]
    """A key under a name of the vendor's."""
    name: str
    """Name of the header or parameter."""
    api_key: SecretRef
    """The key, by reference."""
    location: Literal["header", "query"] = "header"
    """Where the key stands."""


class OAuth2Auth(Declaration):
    """A token that is fetched with a client's credentials."""

    type: Literal["oauth2_client_credentials"]
    """OAuth 2, client credentials."""
    access_token_url: str
    """Where the token is fetched."""
    client_id: SecretRef
    """The client's id, by reference."""
    client_secret: SecretRef
    """The client's secret, by reference."""


Auth = Annotated[BearerAuth | BasicAuth | ApiKeyAuth | OAuth2Auth, Field(discriminator="type")]


class SinglePage(Declaration):
    """All rows in one answer."""

    type: Literal["single_page"]
    """No pages."""


class NextLink(Declaration):
    """The address of the next page stands in the answer."""

    type: Literal["json_link"]
    """A link in the body."""
    next_url_path: str = "next"
    """Path of the link: `paging.next`."""


class HeaderLink(Declaration):
    """The address of the next page stands in the header `Link`."""

    type: Literal["header_link"]
    """A link in a header."""


class PageCursor(Declaration):
    """The answer holds a mark, which asks for the next page."""

    type: Literal["cursor"]
    """A mark in the body."""
    cursor_path: str = "cursors.next"
    """Path of the mark in the answer."""
    cursor_param: str = "cursor"
    """Parameter that the mark is sent back as."""


class Offset(Declaration):
    """Pages by how many rows are left out before them."""

    type: Literal["offset"]
    """Rows to leave out."""
    limit: int = Field(ge=1)
    """Rows of a page."""
    offset_param: str = "offset"
    """Parameter of the rows to leave out."""
    limit_param: str = "limit"
    """Parameter of the rows of a page."""
    total_path: str | None = None
    """Path of the total in the answer; without it the first empty page is the last."""


class PageNumber(Declaration):
    """Pages by number."""

    type: Literal["page_number"]
    """The page's number."""
    base_page: int = 1
    """Number of the first page."""
    page_param: str = "page"
    """Parameter of the number."""
    total_path: str | None = None
    """Path of the number of pages in the answer; without it the first empty page is the last."""


Pagination = Annotated[SinglePage | NextLink | HeaderLink | PageCursor | Offset | PageNumber, Field(discriminator="type")]


class ApiResource(PulledResource):
    """One endpoint, a message a row. Columns are fields of the row, those inside by a dotted path: `properties.email`."""

    path: str | None = None
    """Path below `base_url`; without it the resource's name."""
    params: Mapping[str, StrictStr | StrictInt | StrictBool] = Field(default_factory=dict)
    """Parameters of every request."""
    records: str | None = None
    """Path of the rows in the answer: `data.items`. Without it they are looked for."""
    may_lack_records: bool = False
    """An answer without that path is an empty page, as of vendors that leave empty lists out. Otherwise it is a failure, as of those that
    tell errors with status 200."""
    pagination: Pagination | None = None
    """How the next page is found, where it differs from the source's."""
    cursor_param: str | None = None
    """Parameter that asks for rows from the cursor's last value on: `updated_since`. Without it all rows are read, and older ones left out."""


class ApiSource(PulledSource, MayHoldProfileData):
    """Endpoints of a REST API."""

    kind: Literal["api"]
    """Rows are read from an API."""
    base_url: str
    """Address that all paths are below: `https://api.example.com/v1/`."""
    auth: Auth | None = None
    """How requests are authorised."""
    headers: Mapping[str, str] = Field(default_factory=dict)
    """Headers of every request, such as a version. No secrets."""
    pagination: Pagination = SinglePage(type="single_page")
    """How the next page is found."""
    resources: Mapping[Name, ApiResource] = Field(min_length=1)
    """Name -> endpoint."""

    @field_validator("base_url")
    @classmethod
    def _is_an_address(cls, value: str) -> str:
        if not value.startswith(("https://", "http://")):
            raise ValueError("base_url begins with https:// (or http:// inside your own network)")
        return value

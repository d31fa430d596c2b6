"""What a user may declare about the installation as a whole."""

from __future__ import annotations

from pydantic import Field

from cdp_assets.declaration import Declaration
from cdp_resources.secrets import SecretRef


class SettingsSpec(Declaration):
    """config/settings.yaml"""

    dedupe_window_hours: int = Field(default=168, ge=0, le=8784)
    """A message is a duplicate of one whose batch was received at most this many hours before, with the same source and message id."""
    inbox_retention_days: int = Field(default=7, ge=1)
    """Sealed inbox files are kept this long after they were read; older hours can't be read again."""
    default_currency: str = Field(default="EUR", pattern="^[A-Z]{3}$")
    """Currency of reports."""
    debug_token: SecretRef | None = None
    """The token that shows the live debugger (`GET /v1/debug/events`), by reference: `{env: CDP_DEBUG_TOKEN}`. Without it, or while its
    variable is not set, there is no debugger."""
    min_free_bytes: int | None = Field(default=None, ge=0)
    """While the disk of the inbox has fewer bytes free, the collector answers 429, so that runs and clearing up have room. By default
    512 MB, but at most a twentieth of the disk."""

"""What a user may declare about the installation as a whole."""

from __future__ import annotations

from pydantic import Field

from cdp_assets.declaration import Declaration


class SettingsSpec(Declaration):
    """config/settings.yaml"""

    dedupe_window_hours: int = Field(default=168, ge=0, le=8784)
    """A message is a duplicate of one whose batch was received at most this many hours before, with the same source and message id."""
    inbox_retention_days: int = Field(default=7, ge=1)
    """Sealed inbox files are kept this long after they were read; older hours can't be read again."""
    default_currency: str = Field(default="EUR", pattern="^[A-Z]{3}$")
    """Currency of reports."""

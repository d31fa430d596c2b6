"""Secrets by reference: a declaration names an environment variable, and only this room reads it."""

from __future__ import annotations

import os

from pydantic import BaseModel, ConfigDict


class MissingSecretError(LookupError):
    """The environment variable that a declaration refers to is not set."""


class SecretRef(BaseModel):
    """A secret named by the environment variable that holds it: `{env: CDP_WEB_WRITE_KEY}`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    env: str
    """Name of the environment variable."""

    def resolve(self) -> str:
        """The secret's value. Raises MissingSecretError, which names the variable and never a value."""
        value = os.environ.get(self.env)
        if not value:
            raise MissingSecretError(f"environment variable {self.env} is not set")
        return value

"""Secrets by reference: a declaration names an environment variable, and only this room reads it."""

from __future__ import annotations

import os
import re

from pydantic import BaseModel, ConfigDict

_ADDRESS = re.compile(r"https?://[^\s/@?#]+(/[^\s]*)?")
ADDRESS = "http://host/… or https://host/…, without a user name"
"""What an address must be, in words."""


class SecretError(LookupError):
    """A secret that a declaration refers to is not to be had. Names the variable and never a value."""

    reason = "secret"
    """Short code."""


class MissingSecretError(SecretError):
    """The environment variable that a declaration refers to is not set."""

    reason = "missing_secret"


class UnusableSecretError(SecretError):
    """The environment variable that a declaration refers to holds what cannot be meant."""

    reason = "unusable_secret"


def is_address(text: str) -> bool:
    """Whether requests can be sent there."""
    return _ADDRESS.fullmatch(text) is not None


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


class SecretAddress(SecretRef):
    """A web address named by the environment variable that holds it: `{env: CDP_CRM_URL}`."""

    def resolve(self) -> str:
        """The address. Raises MissingSecretError, UnusableSecretError, which name the variable and never a value."""
        value = super().resolve()
        if not is_address(value):
            raise UnusableSecretError(f"environment variable {self.env} holds no address; an address is {ADDRESS}")
        return value

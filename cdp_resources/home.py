"""Where this installation keeps its data: every path under `CDP_HOME`, named once.

Nothing here reads or writes; `Home` only says where things are.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent


def _from_repository(value: str) -> Path:
    """Relative paths count from the repository, so that every process means the same folder."""
    return (REPOSITORY / Path(value).expanduser()).resolve()


@dataclass(frozen=True)
class Home:
    """The folders and files of one installation."""

    root: Path

    @classmethod
    def from_env(cls) -> Home:
        return cls(_from_repository(os.environ.get("CDP_HOME") or ".cdp"))

    @property
    def inbox(self) -> Path:
        return self.root / "inbox"

    @property
    def lake(self) -> Path:
        return self.root / "lake"

    @property
    def ledger(self) -> Path:
        return self.root / "ledger.sqlite"

    @property
    def marts(self) -> Path:
        return self.root / "marts"

    @property
    def outbox(self) -> Path:
        """Files that the `files` destination wrote, when its settings name no other folder."""
        return self.root / "exports"

    @property
    def answers(self) -> Path:
        """What web services answered to enrichments, kept until it is too old."""
        return self.root / "answers.sqlite"

    @property
    def locks(self) -> Path:
        return self.root / "locks"

    @property
    def dagster(self) -> Path:
        return self.root / "dagster"


def config_dir() -> Path:
    """The folder of the user's declarations: `CDP_CONFIG`, by default `config/` of the repository."""
    return _from_repository(os.environ.get("CDP_CONFIG") or "config")

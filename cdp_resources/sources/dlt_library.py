"""The library dlt, made ready: its files under CDP_HOME, nothing reported to anybody, and no settings but ours.

Imported only by the readers that need it: loading it takes about two seconds.
"""

from __future__ import annotations

import os
from pathlib import Path


def make_ready(folder: Path) -> None:
    """To be called before dlt is imported. `folder` is its working folder."""
    folder.mkdir(parents=True, exist_ok=True)
    os.environ.update(
        {
            "DLT_DATA_DIR": str(folder),
            "DLT_PROJECT_DIR": str(folder),
            "RUNTIME__DLTHUB_TELEMETRY": "false",
            "RUNTIME__LOG_LEVEL": "CRITICAL",  # its log may repeat values
        }
    )

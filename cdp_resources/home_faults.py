"""Whether a failure is about CDP_HOME itself, which cannot be written or read, and what to tell of it."""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from cdp_resources.home import Home

_FAULTS = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENOSPC, errno.EDQUOT)


def fault_of_home(error: BaseException, home: Home) -> str | None:
    """What is wrong with the home, when the failure is about a file in it or a folder on the way to it; else None.

    Names the place in it too, where the rest of the home is not at fault.
    """
    return next((told for each in _causes(error) if (told := _fault(each, home.root))), None)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """The failure, and what it was made of: libraries put their own around what the system said."""
    while error is not None:
        yield error
        error = error.__cause__


def _fault(error: BaseException, root: Path) -> str | None:
    is_open_to_us = os.access(root, os.W_OK | os.X_OK)
    if isinstance(error, sqlite3.OperationalError):
        if is_open_to_us or not getattr(error, "sqlite_errorname", "").startswith(("SQLITE_READONLY", "SQLITE_CANTOPEN")):
            return None
        return f"CDP_HOME={root}: cannot be written ({error})"
    if not isinstance(error, OSError) or error.errno not in _FAULTS or not isinstance(error.filename, str):
        return None
    path = Path(error.filename)
    if path != root and root not in path.parents and path not in root.parents:
        return None
    if error.errno == errno.EEXIST and root in path.parents:  # a name that is taken in a home that is there: a mistake of ours
        return None
    place = f"{path.relative_to(root)} " if is_open_to_us and root in path.parents else ""
    is_closed = any(os.access(each, os.F_OK) and not os.access(each, os.R_OK) for each in (root, path))
    verb = "read" if is_closed else "written"
    return f"CDP_HOME={root}: {place}cannot be {verb} ({error.strerror})"

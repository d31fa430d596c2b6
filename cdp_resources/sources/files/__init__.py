"""Imported files: JSON lines and delimited text become lines of the inbox.

`open_file` refuses what cannot be read; the reader's `lines()` go to `Inbox.add_batch`, its `report()` to the person who imports.
"""

from cdp_resources.sources.files.content import UnreadableFileError
from cdp_resources.sources.files.reader import FileReader, FileReport, RowError, open_file

__all__ = ["FileReader", "FileReport", "RowError", "UnreadableFileError", "open_file"]

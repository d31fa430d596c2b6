"""The one error of sources that cannot be read now."""


class SourceUnavailableError(Exception):
    """A source cannot be read as declared, or not now. The text names the source's field and what is wrong, never a value of its data."""

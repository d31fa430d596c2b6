"""REST APIs, read page by page through dlt's REST source."""

from cdp_resources.sources.api.reader import rows

__all__ = ["rows"]

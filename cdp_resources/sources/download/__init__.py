"""Files that are fetched again and again, each replaced whole, and only by a better one."""

from cdp_resources.sources.download.fetching import Download, Fetched, fetch, stored

__all__ = ["Download", "Fetched", "fetch", "stored"]

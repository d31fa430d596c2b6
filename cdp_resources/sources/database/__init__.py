"""Databases: tables read by a cursor column (tables.py), and changes by logical replication (replication.py)."""

from cdp_resources.sources.database.tables import rows

__all__ = ["rows"]

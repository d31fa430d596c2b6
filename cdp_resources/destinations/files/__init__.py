"""Newline-delimited JSON files in a folder."""

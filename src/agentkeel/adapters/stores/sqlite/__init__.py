"""Logs in one SQLite file: one owned writer connection, many readers."""

from agentkeel.adapters.stores.sqlite.store import SqliteStore

__all__ = ["SqliteStore"]

"""A store in a PostgreSQL database, for many processes on many machines."""

from agentkeel.adapters.stores.postgres.store import PostgresStore

__all__ = ["PostgresStore"]

"""Codex over its app-server."""

from agentkeel.adapters.providers.codex.provider import Codex

__all__ = ["Codex"]

"""Claude Code as a provider, over its stream-json wire with the control protocol."""

from agentkeel.adapters.providers.claude.provider import Claude

__all__ = ["Claude"]

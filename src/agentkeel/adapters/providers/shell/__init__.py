"""Commands as an agent: the prompt is the command, its output is what the agent says."""

from agentkeel.adapters.providers.shell.provider import Shell

__all__ = ["Shell"]

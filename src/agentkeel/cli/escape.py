"""How foreign text is shown on a terminal: the core's rule, under the name the command line uses."""

from agentkeel.core.escape import cut, escape, escape_json

__all__ = ["cut", "escape", "escape_json"]

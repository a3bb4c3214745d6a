"""agentkeel: the session log you can trust under any coding agent."""

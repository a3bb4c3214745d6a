"""The agents agentkeel can run."""

"""Parts of the scripted model server; start reading at `agentkeel.testing.model_server`."""

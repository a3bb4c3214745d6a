"""The command line: `agentkeel` and `keel`."""

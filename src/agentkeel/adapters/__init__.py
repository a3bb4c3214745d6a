"""Adapters: one folder per kind, one file or folder per thing. They import core and ports, never the engine."""

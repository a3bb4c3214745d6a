"""Promises between the engine and the world: Protocols, and nothing that runs."""

"""The async shell around the core: it runs runs. It knows ports, never an adapter."""

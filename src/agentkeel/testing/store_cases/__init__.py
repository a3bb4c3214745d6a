"""The cases of `agentkeel.testing.StoreSuite`, by subject."""

"""The names users rely on are there, and looking at the package costs nothing."""

from __future__ import annotations

import subprocess
import sys

import pytest

import agentkeel
import agentkeel.testing

NAMES = """
AtCapacity Capabilities Capability CapabilityNotSupported Claude Codex CursorExpired Decision Draft Error Event Fenced
InternalError InvalidTransition KeyConflict Manager NotFound PolicyViolation ProviderAuthenticationFailed ProviderError
ProviderQuotaExceeded ProviderRateLimited ProviderTimeout ProviderUnavailable Redactor Route Run RunCancelled
RunInterrupted RunNotFound RunResult RunState RunStatus RunStream RunTerminal RunTimeout SequenceConflict Session
SessionNotFound SessionState SessionStatus Shell StateError StorageError StoreFull StoreIncompatible StoreOwned
StoreUnavailable ToolCall Usage ValidationError __version__ open
"""


def test_the_public_names_are_these() -> None:
    assert set(agentkeel.__all__) == set(NAMES.split())
    for name in agentkeel.__all__:
        assert getattr(agentkeel, name) is not None


def test_the_test_kit_has_its_names() -> None:
    for name in agentkeel.testing.__all__:
        assert getattr(agentkeel.testing, name).__name__ == name


def test_importing_the_package_imports_nothing_heavy() -> None:
    code = "import sys, agentkeel; print(*sorted(m.partition('.')[0] for m in sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"asyncio", "anyio", "apsw", "msgspec", "rich", "cyclopts", "pydantic", "genai_prices"} & set(loaded)


def test_a_name_that_is_not_there_is_said_so() -> None:
    with pytest.raises(AttributeError, match="nonsense"):
        agentkeel.nonsense  # noqa: B018 - the look-up is the test

"""agentkeel: the session log you can trust under any coding agent.

The names here are the public API; each is imported when it is first used, so that the package itself is light.
"""

from __future__ import annotations

from agentkeel._version import __version__ as __version__

TYPE_CHECKING = False  # `typing` would be most of what this import costs; type checkers know the name.
if TYPE_CHECKING:
    from typing import Any

    from agentkeel.adapters.providers.claude import Claude as Claude
    from agentkeel.adapters.providers.codex import Codex as Codex
    from agentkeel.adapters.providers.shell import Shell as Shell
    from agentkeel.core.capabilities import Capabilities as Capabilities
    from agentkeel.core.capabilities import Capability as Capability
    from agentkeel.core.events import Draft as Draft
    from agentkeel.core.events import Event as Event
    from agentkeel.core.redact import Redactor as Redactor
    from agentkeel.core.result import Route as Route
    from agentkeel.core.result import RunResult as RunResult
    from agentkeel.core.result import ToolCall as ToolCall
    from agentkeel.core.run import RunState as RunState
    from agentkeel.core.run import RunStatus as RunStatus
    from agentkeel.core.session import SessionState as SessionState
    from agentkeel.core.session import SessionStatus as SessionStatus
    from agentkeel.core.usage import Usage as Usage
    from agentkeel.errors import AtCapacity as AtCapacity
    from agentkeel.errors import CapabilityNotSupported as CapabilityNotSupported
    from agentkeel.errors import CursorExpired as CursorExpired
    from agentkeel.errors import Error as Error
    from agentkeel.errors import Fenced as Fenced
    from agentkeel.errors import InternalError as InternalError
    from agentkeel.errors import InvalidTransition as InvalidTransition
    from agentkeel.errors import KeyConflict as KeyConflict
    from agentkeel.errors import NotFound as NotFound
    from agentkeel.errors import PolicyViolation as PolicyViolation
    from agentkeel.errors import ProviderAuthenticationFailed as ProviderAuthenticationFailed
    from agentkeel.errors import ProviderError as ProviderError
    from agentkeel.errors import ProviderQuotaExceeded as ProviderQuotaExceeded
    from agentkeel.errors import ProviderRateLimited as ProviderRateLimited
    from agentkeel.errors import ProviderTimeout as ProviderTimeout
    from agentkeel.errors import ProviderUnavailable as ProviderUnavailable
    from agentkeel.errors import RunCancelled as RunCancelled
    from agentkeel.errors import RunInterrupted as RunInterrupted
    from agentkeel.errors import RunNotFound as RunNotFound
    from agentkeel.errors import RunTerminal as RunTerminal
    from agentkeel.errors import RunTimeout as RunTimeout
    from agentkeel.errors import SequenceConflict as SequenceConflict
    from agentkeel.errors import SessionNotFound as SessionNotFound
    from agentkeel.errors import StateError as StateError
    from agentkeel.errors import StorageError as StorageError
    from agentkeel.errors import StoreFull as StoreFull
    from agentkeel.errors import StoreIncompatible as StoreIncompatible
    from agentkeel.errors import StoreOwned as StoreOwned
    from agentkeel.errors import StoreUnavailable as StoreUnavailable
    from agentkeel.errors import ValidationError as ValidationError
    from agentkeel.manager import Manager as Manager
    from agentkeel.manager import open as open  # noqa: A004 - the API's own word
    from agentkeel.ports.provider import Decision as Decision
    from agentkeel.run import Run as Run
    from agentkeel.run import RunStream as RunStream
    from agentkeel.session import Session as Session

_ERRORS = (
    "AtCapacity CapabilityNotSupported CursorExpired Error Fenced InternalError InvalidTransition KeyConflict NotFound "
    "PolicyViolation ProviderAuthenticationFailed ProviderError ProviderQuotaExceeded ProviderRateLimited "
    "ProviderTimeout ProviderUnavailable RunCancelled RunInterrupted RunNotFound RunTerminal RunTimeout "
    "SequenceConflict SessionNotFound StateError StorageError StoreFull StoreIncompatible StoreOwned StoreUnavailable "
    "ValidationError"
)
_HOMES = {
    "manager": "Manager open",
    "session": "Session",
    "run": "Run RunStream",
    "errors": _ERRORS,
    "core.capabilities": "Capabilities Capability",
    "core.events": "Draft Event",
    "core.redact": "Redactor",
    "core.result": "Route RunResult ToolCall",
    "core.run": "RunState RunStatus",
    "core.session": "SessionState SessionStatus",
    "core.usage": "Usage",
    "ports.provider": "Decision",
    "adapters.providers.claude": "Claude",
    "adapters.providers.codex": "Codex",
    "adapters.providers.shell": "Shell",
}
_HOME_OF = {name: f"agentkeel.{home}" for home, names in _HOMES.items() for name in names.split()}

__all__ = ["__version__", *sorted(_HOME_OF)]  # noqa: PLE0604 - names, from the table above


def __getattr__(name: str) -> Any:
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module 'agentkeel' has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

"""The test kit: run your own program against agents and models that do as they are told, offline.

`ScriptedProvider` is an agent without a process; `ModelServer` a model under real agent programs; `VirtualClock` owns
the time. The suites hold your own stores and providers to the promises of the ports.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from agentkeel.testing.clock import VirtualClock as VirtualClock
    from agentkeel.testing.model_server import ModelServer as ModelServer
    from agentkeel.testing.provider_suite import ProviderSuite as ProviderSuite
    from agentkeel.testing.scripted import ScriptedProvider as ScriptedProvider
    from agentkeel.testing.store_suite import StoreSuite as StoreSuite

_HOME_OF = {
    "ModelServer": "model_server",
    "ProviderSuite": "provider_suite",
    "ScriptedProvider": "scripted",
    "StoreSuite": "store_suite",
    "VirtualClock": "clock",
}

__all__ = ["ModelServer", "ProviderSuite", "ScriptedProvider", "StoreSuite", "VirtualClock"]


def __getattr__(name: str) -> Any:
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module 'agentkeel.testing' has no attribute {name!r}")
    value = getattr(import_module(f"agentkeel.testing.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

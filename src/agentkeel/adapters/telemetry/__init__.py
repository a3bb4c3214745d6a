"""Telemetry from committed events: OpenTelemetry spans and metrics, and a Prometheus registry. Extra `telemetry`."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from agentkeel.errors import CapabilityNotSupported

if TYPE_CHECKING:
    from agentkeel.adapters.telemetry.otel import OtelTelemetry
    from agentkeel.adapters.telemetry.prometheus import PrometheusTelemetry

__all__ = ["OtelTelemetry", "PrometheusTelemetry"]

_PLACES = {
    "OtelTelemetry": ("agentkeel.adapters.telemetry.otel", "opentelemetry-api"),
    "PrometheusTelemetry": ("agentkeel.adapters.telemetry.prometheus", "prometheus-client"),
}


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, package = _PLACES[name]
    try:
        return getattr(import_module(module), name)
    except ImportError as error:
        raise CapabilityNotSupported(
            f"{name} needs {package}, which is not installed. Install agentkeel[telemetry].",
            code="dependency_not_available",
            details={"package": package, "extra": "telemetry"},
        ) from error

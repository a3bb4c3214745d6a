"""What an agent can do, and how early we learn of what it does."""

from __future__ import annotations

from typing import Literal

import msgspec

from agentkeel.core.usage import Reports

__all__ = ["Capabilities", "Capability", "CapabilityType", "Enforcement"]

CapabilityType = Literal["tool", "resource", "prompt", "sampling", "file_access", "network_access", "code_execution"]
Enforcement = Literal["gate", "native", "observe"]
"""gate: we decide before a tool runs. native: the agent enforces what we pass. observe: we see it too late."""


class Capability(msgspec.Struct, frozen=True):
    """One thing an agent can do: `Capability("tool", "bash")`; without a name, anything of the type."""

    type: CapabilityType
    name: str | None = None


class Capabilities(msgspec.Struct, frozen=True, kw_only=True):
    """What a provider declares; the provider suite holds it to that.

    Attributes:
        resume: The agent takes up its own conversation in a new process.
        warm: One process serves prompt after prompt.
        interrupt: A turn can be stopped and the process stays usable.
        tokens: It uses tokens, and says how many.
        usage: What the agent's own usage reports mean; drafts always carry deltas.
    """

    can: tuple[Capability, ...] = ()
    text_deltas: bool = False
    reasoning_deltas: bool = False
    resume: bool = False
    warm: bool = False
    interrupt: bool = False
    permissions: Enforcement = "observe"
    tokens: bool = True
    usage: Reports = "delta"
    cost: bool = False

    def has(self, wanted: Capability) -> bool:
        """Whether any declared capability answers to `wanted`."""
        return any(c.type == wanted.type and wanted.name in {None, c.name} for c in self.can)

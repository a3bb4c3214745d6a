"""Events as a person reads them."""

from agentkeel.core.rendering.compact import Compact
from agentkeel.core.rendering.renderer import Passthrough, Renderer
from agentkeel.core.rendering.studio import Studio
from agentkeel.core.rendering.verbose import Verbose

__all__ = ["Compact", "Passthrough", "Renderer", "Studio", "Verbose"]

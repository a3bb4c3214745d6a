"""Redaction: secrets out of everything that is stored, shown or sent. On by default."""

from agentkeel.core.redact.patterns import DEFAULT, Pattern
from agentkeel.core.redact.redactor import CATEGORISED, PLAIN, Redactor, Span
from agentkeel.core.redact.stream import StreamRedactor

__all__ = ["CATEGORISED", "DEFAULT", "PLAIN", "Pattern", "Redactor", "Span", "StreamRedactor"]

"""Figures and times as a person reads them, on a terminal or on a page."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation

from agentkeel.core.usage import Usage

__all__ = ["added", "bytes_of", "clock", "day", "duration", "money", "tokens"]


def duration(seconds: float | None) -> str:
    """`0.4 s`, `12 s`, `3 min 5 s`, `2 h 4 min`; empty where there is none."""
    if seconds is None:
        return ""
    if seconds < 9.95:
        return f"{max(0.0, seconds):.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def tokens(usage: Usage) -> str:
    """How many tokens, and of which sort; empty when nobody counted any."""
    if not usage.total_tokens:
        return ""
    read = usage.input_tokens + usage.cache_read_tokens + usage.cache_write_tokens
    return f"{usage.total_tokens:,} tokens ({read:,} in, {usage.output_tokens:,} out)"


def money(dollars: str | Decimal | None) -> str:
    """Dollars, with as many digits as tell something; what is no number stays as it is."""
    if dollars is None:
        return ""
    try:
        amount = Decimal(dollars)
    except (InvalidOperation, ValueError):
        return str(dollars)
    if not amount.is_finite():
        return str(dollars)
    return f"${amount:,.2f}" if amount >= 1 else f"${amount:.4f}"


def added(total: Decimal | None, dollars: str | None) -> Decimal | None:
    """The sum; what is no amount adds nothing."""
    try:
        amount = None if dollars is None else Decimal(dollars)
    except InvalidOperation:
        return total
    if amount is None or not amount.is_finite():
        return total
    return amount + (total or 0)


def bytes_of(count: int) -> str:
    """`812 bytes`, `4.1 kB`, `3.0 MB`."""
    if count < 1000:
        return f"{count} bytes"
    return f"{count / 1000:,.1f} kB" if count < 1_000_000 else f"{count / 1_000_000:,.1f} MB"


def clock(at: datetime) -> str:
    """The time of day, UTC."""
    return f"{at.astimezone(UTC):%H:%M:%S}"


def day(at: datetime) -> str:
    """The day and time, UTC."""
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"

"""What a person may choose as an id. Ids end up in paths, URLs and terminals, so they are kept plain."""

from __future__ import annotations

import re

from agentkeel.errors import ValidationError

__all__ = ["check_id"]

_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:-]{0,127}\Z")


def check_id(text: str, *, what: str = "id") -> str:
    """`text`, if it may be an id that a user chose: 1 to 128 of A-Z a-z 0-9 _ . : - and no leading punctuation."""
    if not _PLAIN.match(text):
        raise ValidationError(
            f"{what} {text[:40]!r} is not allowed: use 1 to 128 letters, digits, '_', '.', ':' or '-', "
            "beginning with a letter or digit.",
            code="invalid_format",
            details={"field": what},
        )
    return text

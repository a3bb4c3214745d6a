"""A regular expression together with its beginnings.

A streamed text must be held back where it could still become a secret. `re` cannot say "this could still match", so
each secret is built from shapes, and a shape knows two expressions: `full` matches a word of the shape, `start`
matches, up to the end of the text, everything that more text could turn into a longer word (the empty text too).

Only classes, counted repeats and alternatives: no look-around, no `\\b`. What matches then depends on nothing before
the match, so a text may be cut anywhere outside a match.
"""

from typing import NamedTuple

__all__ = ["Shape", "chars", "either", "literal", "many", "secret", "then"]


class Shape(NamedTuple):
    """`full` matches a word; `start` matches what may still grow into one, at the end of the text only."""

    full: str
    start: str


def chars(allowed: str, least: int = 1, most: int | None = 1) -> Shape:
    """From `least` to `most` (None: any number of) characters of a class, such as `[0-9A-Z]`."""
    if most is None:
        return Shape(f"{allowed}{{{least},}}", rf"{allowed}*\Z")
    return Shape(f"{allowed}{{{least},{most}}}", rf"{allowed}{{0,{most - 1}}}\Z")


def literal(text: str, *, any_case: bool = False) -> Shape:
    """Exactly this ASCII text, or in any mix of upper and lower case."""
    return then(*(chars(_one(char, any_case)) for char in text))


def then(*shapes: Shape) -> Shape:
    """One shape after the other."""
    start = shapes[-1].start
    for shape in reversed(shapes[:-1]):
        start = f"(?:{shape.start}|{shape.full}{start})"
    return Shape("".join(shape.full for shape in shapes), start)


def either(*shapes: Shape) -> Shape:
    """The first of these that fits."""
    return Shape(f"(?:{'|'.join(shape.full for shape in shapes)})", f"(?:{'|'.join(shape.start for shape in shapes)})")


def many(shape: Shape) -> Shape:
    """Any number of these, none too."""
    return Shape(f"(?:{shape.full})*", f"(?:{shape.full})*{shape.start}")


def secret(shape: Shape) -> Shape:
    """The part that is the secret; what stands around it in the pattern is kept."""
    return Shape(f"({shape.full})", shape.start)


def _one(char: str, any_case: bool) -> str:
    if any_case and char.isalpha():
        return f"[{char.lower()}{char.upper()}]"
    return f"[{char}]" if char not in "\\]^-[" else f"[\\{char}]"

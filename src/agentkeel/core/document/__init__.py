"""A log as a document for reading: Markdown, or one HTML page that needs nothing else."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Protocol

from agentkeel.core.document.markdown import MarkdownDocument
from agentkeel.core.document.page import HtmlDocument
from agentkeel.core.events import Event

__all__ = ["FORMATS", "Document", "HtmlDocument", "MarkdownDocument", "document", "html", "markdown"]


class Document(Protocol):
    """Grows by events, and is read in pieces of text. Keeps only what the events to come may change."""

    def add(self, event: Event) -> Iterable[str]:
        """What can be written now that this event is known. Events come in log order."""
        ...

    def end(self) -> Iterable[str]:
        """What is left to write, with the summary. Nothing is added after it."""
        ...


FORMATS: Mapping[str, Callable[[], Document]] = {"markdown": MarkdownDocument, "html": HtmlDocument}


def document(format: str) -> Document:
    """An empty document of one of `FORMATS`."""
    return FORMATS[format]()


def markdown(events: Iterable[Event]) -> Iterator[str]:
    """The events as Markdown, in pieces. Their text is text: no HTML, no link and no image of theirs comes to life."""
    return _pieces(MarkdownDocument(), events)


def html(events: Iterable[Event]) -> Iterator[str]:
    """The events as one HTML page, in pieces. It runs nothing, fetches nothing and says so in its policy."""
    return _pieces(HtmlDocument(), events)


def _pieces(made: Document, events: Iterable[Event]) -> Iterator[str]:
    for event in events:
        yield from made.add(event)
    yield from made.end()

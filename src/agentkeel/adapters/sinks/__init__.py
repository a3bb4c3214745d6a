"""Places for events to go: terminals, files, functions, brokers."""

from agentkeel.adapters.sinks.bus import Bus, Subscription
from agentkeel.adapters.sinks.callback import Callback
from agentkeel.adapters.sinks.cursors import FileCursors, MemoryCursors
from agentkeel.adapters.sinks.file import File, Terminal
from agentkeel.adapters.sinks.jsonl import Jsonl
from agentkeel.adapters.sinks.publish import Publish, topic_of

__all__ = [
    "Bus",
    "Callback",
    "File",
    "FileCursors",
    "Jsonl",
    "MemoryCursors",
    "Publish",
    "Subscription",
    "Terminal",
    "topic_of",
]

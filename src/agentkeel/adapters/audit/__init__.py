"""Places for the audit log: a file, and memory for tests."""

from agentkeel.adapters.audit.file import FileAudit
from agentkeel.adapters.audit.memory import MemoryAudit
from agentkeel.adapters.audit.reading import Finding, Torn, beside, examine, read_entries

__all__ = ["FileAudit", "Finding", "MemoryAudit", "Torn", "beside", "examine", "read_entries"]

"""How much memory a process takes, from Linux's accounts of it."""

from __future__ import annotations

from pathlib import Path

_STATUS = Path("/proc/self/status")
# What --json calls them: the most there has been, memory of its own, pages of files, and pages of files in shared memory.
_FIELDS = {"peak": "VmHWM", "anonymous": "RssAnon", "file": "RssFile", "shared": "RssShmem"}


class MemoryUse:
    """What this process has taken since this object was made, in bytes."""

    def __init__(self) -> None:
        try:
            Path("/proc/self/clear_refs").write_text("5")  # the peak is what there is now
            self._before: dict[str, int] | None = _read()
        except OSError:
            self._before = None  # a kernel that does not do that knows of no peak after the process's start

    def since(self) -> dict[str, int] | None:
        if self._before is None:
            return None
        return {name: max(value - self._before[name], 0) for name, value in _read().items()}


def _read() -> dict[str, int]:
    lines = dict(line.split(":", 1) for line in _STATUS.read_text().splitlines())
    return {name: int(lines[field].split()[0]) << 10 for name, field in _FIELDS.items()}

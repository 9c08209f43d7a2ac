"""What this process uses: real time, processor time, memory."""

from __future__ import annotations

import contextlib
import sys
import time
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Reading", "available_bytes", "forget_peak", "peak_bytes"]


@dataclass(frozen=True)
class Reading:
    """The clocks at one moment, seconds."""

    real_s: float
    cpu_s: float

    @classmethod
    def now(cls) -> Reading:
        return cls(time.monotonic(), time.process_time())


def forget_peak() -> None:
    """Let the peak of memory count from now, where the kernel can (Linux, proc(5), clear_refs)."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_bytes() -> int:
    """Return the most memory that was resident at once; 0 where nobody tells."""
    # Not getrusage where there is /proc: its maximum is inherited from the parent through fork (getrusage(2)).
    value = _field(Path("/proc/self/status"), "VmHWM:")
    if value:
        return value
    try:
        import resource
    except ImportError:  # Windows
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def available_bytes() -> int:
    """Return the memory that is free to take; 0 where nobody tells."""
    return _field(Path("/proc/meminfo"), "MemAvailable:")


def _field(path: Path, name: str) -> int:
    """Return a field of /proc given in kB, as bytes."""
    try:
        for line in path.read_text().splitlines():
            if line.startswith(name):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError, IndexError):
        pass
    return 0

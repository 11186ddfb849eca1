"""onnxruntime with its telemetry off, and with one memory pool for all models instead of one for each (0.4 MB less).

Import it from here only: the telemetry's switch works only if it is set before the first import.

Otherwise onnxruntime writes a device id and an event database into the user's home folder and looks up a server outside the EU
(measured with onnxruntime 1.32; its function `disable_telemetry_events` stops neither).
"""

import contextlib
import ctypes
import os

os.environ["ORT_DISABLE_TELEMETRY"] = "1"
with contextlib.suppress(AttributeError, OSError, TypeError):  # another C library than glibc
    ctypes.CDLL(None).mallopt(
        -8, 1
    )  # M_ARENA_MAX: one pool for all threads, 0.4 MB less; ours seldom allocate at the same time

import onnxruntime  # noqa: TID251  the one place

_memory = onnxruntime.OrtMemoryInfo("Cpu", onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, onnxruntime.OrtMemType.DEFAULT)
onnxruntime.create_and_register_allocator(_memory, None)
ONE_POOL = ("session.use_env_allocators", "1")
"""An option for every session: it takes its memory from the pool."""

__all__ = ["ONE_POOL", "onnxruntime"]

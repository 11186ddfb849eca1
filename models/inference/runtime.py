"""onnxruntime with its telemetry off, in a process whose C library gives freed memory back to the system early.

Import it from here only: the telemetry's switch works only if it is set before the first import.

Otherwise onnxruntime writes a device id and an event database into the user's home folder and looks up a server outside the EU
(measured with onnxruntime 1.32; its function `disable_telemetry_events` stops neither).
"""

import contextlib
import ctypes
import os

os.environ["ORT_DISABLE_TELEMETRY"] = "1"
with contextlib.suppress(AttributeError, OSError, TypeError):  # another C library than glibc
    _mallopt = ctypes.CDLL(None).mallopt
    _mallopt(-8, 1)  # M_ARENA_MAX: one pool for all threads, 0.4 MB less; ours seldom allocate at the same time
    _mallopt(-3, 32768)  # M_MMAP_THRESHOLD: larger blocks, such as activations, leave no holes in the heap, 0.5 MB less

import onnxruntime  # noqa: TID251  the one place

__all__ = ["onnxruntime"]

"""onnxruntime with its telemetry off. Import it from here only: the switch works only if it is set before the first import.

Otherwise onnxruntime writes a device id and an event database into the user's home folder and looks up a server outside the EU
(measured with onnxruntime 1.32; its function `disable_telemetry_events` stops neither).
"""

import os

os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import onnxruntime  # noqa: TID251  the one place

__all__ = ["onnxruntime"]

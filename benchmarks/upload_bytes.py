"""Megabytes of sealed blocks a day for one continuous ECG strap, by upload policy: `python -m benchmarks.upload_bytes`.

Two virtual hours of a strap in sinus rhythm pass the drivers, the pipeline and the recorder, with commits every 10 s.
"""

import asyncio
import json
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, TypeVar

from benchmarks.disk_writes import strap_seconds
from config.limits import DEFAULT_LIMITS
from config.settings import UPLOAD_POLICIES, UploadPolicy
from gateway.buffer_alert import BufferAlert
from gateway.clock import SystemClock
from gateway.models import LoadedModels
from gateway.pipeline import Pipeline
from gateway.recorder import COMMIT_INTERVAL_S, Recorder
from gateway.upload import WaveformUpload
from sync.seal import TAG_BYTES
from sync.wire import Lane

SECONDS: Final = 7200
HEADER_BYTES: Final = 130
"""Of a block of the hub `hub-1` and the subject `subject-1`."""
T = TypeVar("T")


class _Counted:
    """Counts the bytes that an outbox would seal."""

    is_nearly_full = False

    def __init__(self) -> None:
        self.sealed = Counter[Lane]()

    def put_many(self, blocks: Iterable[tuple[Lane, bytes]], state: Mapping[str, bytes] | None = None) -> Sequence[object]:
        del state
        self.sealed.update({lane: 0 for lane, _ in blocks})
        for lane, plaintext in blocks:
            self.sealed[lane] += len(plaintext) + HEADER_BYTES + TAG_BYTES
        return ()


async def _call_inline(function: Callable[..., T], *arguments: Any) -> T:
    return function(*arguments)


async def _feed(policy: UploadPolicy) -> dict[str, float]:
    outbox, pipeline = _Counted(), Pipeline("strap", DEFAULT_LIMITS, LoadedModels())
    recorder = Recorder(outbox, _call_inline, lambda: None, BufferAlert(SystemClock()), upload=WaveformUpload(policy))
    for second, feed in enumerate(strap_seconds(SECONDS), 1):
        await recorder.add(feed(pipeline).records, {})
        if second % COMMIT_INTERVAL_S == 0:
            await recorder.flush()
    return {lane: round(size * 86_400 / SECONDS / 1e6, 2) for lane, size in outbox.sealed.items()}


def main() -> int:
    """Prints one JSON object a policy."""
    for policy in UPLOAD_POLICIES:
        lanes = asyncio.run(_feed(policy))
        sent = round(sum(size for lane, size in lanes.items() if lane != "archive"), 2)
        print(json.dumps({"policy": policy, "sent_mb_a_day": sent, "by_lane": lanes}))
    return 0


if __name__ == "__main__":
    sys.exit(main())

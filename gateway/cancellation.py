"""Work that a cancellation may delay but must not interrupt."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


async def finish_despite_cancel(work: Coroutine[Any, Any, T]) -> T:
    """Runs `work` to its end and returns its result. A cancellation that arrives meanwhile is raised afterwards.

    Work on a worker thread cannot be cancelled. A caller that stops waiting for it cannot know whether it was done.
    """
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as error:
            cancelled = error
    result = task.result()
    if cancelled:
        raise cancelled
    return result

"""An asyncio event loop on virtual time: when every task is waiting, the time jumps to the next timer.

A day of `asyncio.sleep` takes only as long as the work between the sleeps. The order of events is always the same, because a
function passed to an executor runs immediately in the loop's own thread. Tasks can only wait for events within this process:
a task that waits for a socket or another process while no timer is set is reported as a deadlock.
"""

import asyncio
import selectors
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, TypeVar, TypeVarTuple

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class DeadlockError(RuntimeError):
    """Every task is waiting and no timer is set, so nothing can happen any more on virtual time."""


class _TimeJumpSelector(selectors.BaseSelector):
    """Polls the real selector without waiting. When nothing is ready, passes the timeout to `on_idle` instead of waiting."""

    def __init__(self, on_idle: Callable[[float | None], None]) -> None:
        self._real = selectors.DefaultSelector()
        self._on_idle = on_idle

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = self._real.select(0)
        if not ready and (timeout is None or timeout > 0):
            self._on_idle(timeout)
        return ready

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return self._real.register(fileobj, events, data)

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return self._real.unregister(fileobj)

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return self._real.get_map()

    def close(self) -> None:
        self._real.close()


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """An event loop whose `time()` starts at 0.0 and advances only when every task is waiting."""

    def __init__(self) -> None:
        self._now_s = 0.0
        super().__init__(_TimeJumpSelector(self._on_idle))

    def time(self) -> float:
        return self._now_s

    def _on_idle(self, timeout_s: float | None) -> None:
        if timeout_s is None:
            waiting = sorted(task.get_name() for task in asyncio.all_tasks(self))
            raise DeadlockError(
                f"virtual time stopped at {self._now_s:.3f} s: no timer is set and these tasks are waiting: {waiting}"
            )
        self._now_s += timeout_s

    def run_in_executor(self, executor: object, func: Callable[[*Ts], T], *args: *Ts) -> asyncio.Future[T]:
        """Runs `func` immediately in this thread: without a second thread there is only one order of events."""
        outcome: asyncio.Future[T] = self.create_future()
        try:
            outcome.set_result(func(*args))
        except Exception as error:  # noqa: BLE001  an executor passes on any error of the function
            outcome.set_exception(error)
        return outcome


def run(main: Coroutine[Any, Any, T]) -> T:
    """`asyncio.run` on virtual time. Raises DeadlockError where `asyncio.run` would wait indefinitely."""
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(main)

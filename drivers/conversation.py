"""The long form of a driver: a conversation with one service of a connected sensor, without I/O.

A session opens one conversation for each connection and each instance of the service, after it has subscribed to the driver's
streams and read the device information. It then runs the procedure `start`, passes every value to `receive`, and runs the
procedure `stop` before it disconnects.

A procedure is a generator. It yields a reading or an action; the session performs the action and sends its result into the
generator. A refusal or a missing answer is raised at the `yield`; if the procedure does not catch it, the set-up has failed,
which costs the sensor the streams of this driver only. Values arrive while a procedure waits: `receive` sees each of them
first.
"""

from collections.abc import Callable, Generator, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from drivers.device import DeviceInformation
from drivers.readings import Reading

ANSWER_TIMEOUT_S: Final = 10.0
"""A control point answers within a few hundred ms. An ATT transaction may take 30 s, which is too long for a patient."""


class RefusedError(Exception):
    """The sensor refused an action, or an answer says that it did. The message names the request and the sensor's reason."""


class NoAnswerError(Exception):
    """The sensor did not answer in time."""


@dataclass(frozen=True, slots=True)
class Consent:
    """One of the sensor's users who is this patient: its number at the sensor, and the code that the sensor asks for."""

    user: int
    code: int


@dataclass(frozen=True, slots=True)
class Context:
    """What is known when a conversation begins. `memory` is what this driver last remembered of this sensor, ready for JSON."""

    device: DeviceInformation = field(default_factory=DeviceInformation)
    consent: Consent | None = None
    memory: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Moment:
    """The hub's time: UTC in microseconds since 1970, and what the patient's local time adds to UTC.

    `is_plausible` is False while the hub's clock cannot be right, as after a start without a network: no sensor is set by it.
    """

    utc_us: int
    utc_offset_s: int = 0
    is_plausible: bool = True


@dataclass(frozen=True, slots=True)
class Value:
    """A notified or indicated value, and when it arrived."""

    characteristic: str
    payload: bytes
    arrived: Moment


@dataclass(frozen=True, slots=True)
class Read:
    """Read a characteristic. The result is its value, or None if the sensor lacks the characteristic or refuses."""

    characteristic: str


@dataclass(frozen=True, slots=True)
class Write:
    """Write to a characteristic, with response. Raises `RefusedError`."""

    characteristic: str
    payload: bytes


@dataclass(frozen=True, slots=True)
class Request:
    """Write to a control point and wait for the value of the same characteristic that `is_answer` accepts: the result.

    `timeout_s` counts from the last value of a stream in `progress`, because an answer may follow many records; None stands for
    all streams of the driver. Raises `RefusedError` and `NoAnswerError`.
    """

    characteristic: str
    payload: bytes
    is_answer: Callable[[bytes], bool]
    timeout_s: float = ANSWER_TIMEOUT_S
    progress: frozenset[str] | None = None


@dataclass(frozen=True, slots=True)
class Wait:
    """Wait until `seconds` have passed without a value of a stream in `progress`; None stands for all streams of the driver."""

    seconds: float
    progress: frozenset[str] | None = None


@dataclass(frozen=True, slots=True)
class Bond:
    """Pair with the sensor, or encrypt the link with the existing bond. Raises `RefusedError`."""


@dataclass(frozen=True, slots=True)
class Remember:
    """Keep `memory` for the next `Context`. It is stored in one transaction with the readings yielded before it."""

    memory: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Expect:
    """From now on, expect another `Expect` of the same name within `within_s`; None: no longer.

    If none comes, the sensor counts as silent, as a stream does after `silent_after_s`. This is for signals that share a
    characteristic. The message about it calls the signal `name`.
    """

    name: str
    within_s: float | None


Action = Read | Write | Request | Wait | Bond | Remember | Expect
Procedure = Generator[Action | Reading, Any, None]


@dataclass(frozen=True, slots=True)
class Run:
    """Run this procedure after those that are running."""

    procedure: Procedure


Effect = Reading | Remember | Expect | Run


class Conversation(Protocol):
    """A conversation with one service. See the module's docstring."""

    def start(self, now: Moment) -> Procedure:
        """Return the procedure that follows the subscriptions."""
        ...

    def receive(self, value: Value) -> Iterable[Effect]:
        """Return what a value means. Values arrive in order, those of the control point too.

        Raises:
            DecodeError: the payload violates its specification. The conversation goes on.
        """
        ...

    def stop(self) -> Procedure:
        """Return the procedure that ends the measurements before a clean disconnection."""
        ...


def do_nothing() -> Procedure:
    """A procedure without a step."""
    yield from ()

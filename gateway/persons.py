"""Asks the patient whose a result is, and brings the answers to the agent.

`pulsegate persons` is another process than the agent, which alone writes to the buffer. It reads the results that wait from
the state that the agent stored, and leaves each answer as a file in the data folder. The file is named after the result and
says yes or no: it holds no health value. The agent looks for answers all the time and deletes each one that it has carried out.
"""

import asyncio
import contextlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, NoReturn

from config.files import replacing
from drivers.kinds import unit_of
from gateway.hub_key import HUB_KEY_FILE, load_hub_key
from gateway.sensor_runner import STATE_KEY_PREFIX, SensorRunner
from gateway.spots import HeldResult, held_results
from sync.errors import PermanentError
from sync.outbox import read_states
from sync.transport import WorkerCall

ANSWERS_FOLDER: Final = "answers"
"""The folder in the data folder in which the answers wait for the agent."""
POLL_INTERVAL_S: Final = 2.0
"""How often the agent looks for answers: soon enough for a person who waits for the result."""
_ID: Final = re.compile(r"[0-9a-f]{12}")
_ANSWERS: Final[Mapping[str, bool]] = {"yes": True, "no": False}


@dataclass(frozen=True, slots=True)
class Question:
    """A result of a sensor that waits for the patient's answer."""

    sensor: str
    held: HeldResult


def read_questions(data: Path, subject: str) -> list[Question]:
    """Return what waits for the answer of this subject, from the state that the agent stored last in its data folder.

    Raises:
        SyncError: the buffer or the hub key is missing, or cannot be read.
    """
    buffer, key = data / "buffer.db", data / HUB_KEY_FILE
    if not (buffer.exists() and key.exists()):
        raise PermanentError(f"there is no buffer in {data}: the agent has never run there; start it with pulsegate run")
    return [
        Question(state.name.removeprefix(STATE_KEY_PREFIX), held)
        for state in read_states(buffer, load_hub_key(data))
        if state.subject == subject and state.name.startswith(STATE_KEY_PREFIX)
        for held in held_results(json.loads(state.value).get("spots"))
    ]


def describe(question: Question) -> str:
    """Return a line for the patient: the id, the time of the measurement here, the sensor and the values."""
    held = question.held
    at = datetime.fromtimestamp(held.result.times.at_us / 1e6, UTC).astimezone()
    values = ", ".join(f"{kind} {value:g} {unit_of(kind)}".strip() for kind, value, _ in held.values)
    sent = " (sent to the clinic, marked as unconfirmed)" if held.is_sent else ""
    return f"{held.id}  {at:%Y-%m-%d %H:%M}  {question.sensor}: {values}{sent}"


def leave_answer(data: Path, id_: str, *, is_patient: bool) -> None:
    """Leave an answer for the agent; it replaces an earlier one that was not carried out yet.

    Raises:
        PermanentError: it cannot be written.
    """
    folder = data / ANSWERS_FOLDER
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        with replacing(folder / id_, durable=True) as draft:
            draft.write_text("yes" if is_patient else "no", encoding="ascii")
    except OSError as error:
        raise PermanentError(f"cannot write the answer to {folder} ({error.strerror}): run this as the agent's user") from error


def read_answers(data: Path) -> dict[str, bool]:
    """Return the answers that wait, by the id of the result: whether it is the patient's. Other files are ignored."""
    answers: dict[str, bool] = {}
    with contextlib.suppress(OSError):  # no folder: there was no answer yet
        for path in (data / ANSWERS_FOLDER).iterdir():
            text = path.read_text(encoding="ascii", errors="replace") if _ID.fullmatch(path.name) else ""
            if text in _ANSWERS:
                answers[path.name] = _ANSWERS[text]
    return answers


async def deliver_answers(data: Path, sensors: Sequence[SensorRunner], call: WorkerCall) -> NoReturn:
    """Bring each answer to the sensor whose result it is about. `call` runs a function on the storage thread."""
    delivered: set[str] = set()
    while True:
        for id_, is_patient in (await call(read_answers, data)).items():
            asked = [sensor for sensor in sensors if sensor.pipeline.spots.is_held(id_)]
            if asked and id_ not in delivered:
                delivered.add(id_)
                asked[0].answer(id_, is_patient=is_patient)
            elif not asked:  # carried out, or about a result that does not wait any more
                delivered.discard(id_)
                await call(_delete_answer, data, id_)
        await asyncio.sleep(POLL_INTERVAL_S)


def _delete_answer(data: Path, id_: str) -> None:
    with contextlib.suppress(OSError):
        (data / ANSWERS_FOLDER / id_).unlink()

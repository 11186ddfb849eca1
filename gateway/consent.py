"""The patient's consent at the hub: without it no sensor is connected, nothing is stored, and what was not sent is deleted.

    pulsegate consent withdraw ──▶ file ──▶ agent stops ──▶ status ──▶ clinic records it ──▶ acknowledgement ──▶ file deleted

A hub consents by its registration until the clinic or the patient says otherwise. Giving consent again is the clinic's part,
where the patient signs. Changes are numbered by the clinic, so that no repeated message undoes a later one.
"""

import asyncio
import json
import logging
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final, NoReturn

from config.files import replacing
from gateway.audit_events import AgentAudit
from gateway.hub_key import HUB_KEY_FILE, load_hub_key
from sync.audit import Action, AuditEvent, Category, Purpose, object_id
from sync.consent import CARE, PURPOSES, ConsentAnswer, ToldConsent, subject_tag
from sync.errors import PermanentError, TransientError
from sync.outbox import Outbox, read_states
from sync.transport import WorkerCall
from sync.wire import is_name

WITHDRAWALS_FOLDER: Final = "withdrawals"
"""The folder in the data folder with what was withdrawn, until the clinic has recorded it: a file for each subject, named after
it. It holds a random number that names this withdrawal to the clinic."""
WITHDRAWAL_BYTES: Final = 6
"""Random bytes of a withdrawal's number: it fits into a count, and no two of one subject are the same."""
STATE_KEY: Final = "consent"
"""Name of the state in the buffer."""
POLL_INTERVAL_S: Final = 2.0
"""How often the agent looks for a withdrawal: it takes effect at once for a person who waits."""
log: Final = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ConsentState:
    """What the clinic said last: the number of the change, and the purposes for which the subject consents since."""

    number: int = 0
    purposes: tuple[str, ...] = PURPOSES

    @classmethod
    def from_bytes(cls, stored: bytes | None) -> "ConsentState":
        if stored is None:
            return cls()
        fields = json.loads(stored)
        return cls(fields["number"], tuple(fields["purposes"]))

    def to_bytes(self) -> bytes:
        return json.dumps(asdict(self)).encode()


def leave_withdrawal(data: Path, subject: str) -> None:
    """Note that the patient withdraws; a running agent stops within seconds. Repeating it changes nothing.

    Raises:
        PermanentError: it cannot be written.
    """
    folder = data / WITHDRAWALS_FOLDER
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        if not (folder / subject).exists():
            with replacing(folder / subject, durable=True) as draft:
                draft.write_text(str(int.from_bytes(os.urandom(WITHDRAWAL_BYTES), "big") + 1), encoding="ascii")
    except OSError as error:
        raise PermanentError(f"cannot write to {folder} ({error.strerror}): run this as the agent's user") from error


def read_withdrawals(data: Path) -> dict[str, int]:
    """Return what was withdrawn at this hub and the clinic has not recorded yet: the number of each subject's withdrawal.

    Raises:
        PermanentError: it cannot be read, and must not be passed over.
    """
    folder = data / WITHDRAWALS_FOLDER
    try:
        found = [path for path in sorted(folder.glob("*")) if is_name(path.name)]
        return {path.name: int(path.read_text(encoding="ascii")) for path in found}
    except (OSError, ValueError) as error:
        raise PermanentError(
            f"cannot read what was withdrawn in {folder} ({type(error).__name__}): give the agent's user access to it, or "
            "delete it and run pulsegate consent withdraw again"
        ) from error


def read_state(data: Path, subject: str) -> ConsentState:
    """Return what the clinic said last of a subject, from the buffer of an agent that may run.

    Raises:
        SyncError: the buffer or the hub key cannot be read.
    """
    buffer = data / "buffer.db"
    if not (buffer.exists() and (data / HUB_KEY_FILE).exists()):
        return ConsentState()
    states = read_states(buffer, load_hub_key(data))
    return ConsentState.from_bytes(
        next((state.value for state in states if (state.subject, state.name) == (subject, STATE_KEY)), None)
    )


@dataclass(slots=True)
class HubConsent:
    """The consent of the hub's present subject. Call the methods, except `watch`, on the storage thread.

    `restart` asks the agent to start its tasks again; it is called on the event loop.
    """

    data: Path
    hub: str
    subject: str
    outbox: Outbox
    audit: AgentAudit
    restart: Callable[[], None]
    state: ConsentState = field(init=False)
    is_given: bool = field(init=False)
    """Whether the running tasks may collect."""
    _loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.get_running_loop)

    def load(self) -> None:
        """Read the state. Without consent, nothing of the subject is stored or sent from here on."""
        self.state = ConsentState.from_bytes(self.outbox.load_state(STATE_KEY))
        self.is_given = self._find()
        if not self.is_given:
            log.warning("no consent: no sensor is connected, and nothing is stored or sent (pulsegate consent)")
            self.outbox.stop_collecting()

    def told(self) -> ToldConsent:
        """Return what the status says. A withdrawal of an earlier subject goes first."""
        withdrawals = read_withdrawals(self.data)
        earlier = next((subject for subject in withdrawals if subject != self.subject), None)
        if earlier is not None:
            return ToldConsent(subject_tag(self.hub, earlier), 0, withdrawals[earlier])
        return ToldConsent(subject_tag(self.hub, self.subject), self.state.number, withdrawals.get(self.subject))

    def receive(self, answer: ConsentAnswer) -> None:
        """Follow what the clinic says, unless it is older than what is known. If the disk is full, the clinic says it again."""
        try:
            self._accept(answer)
        except TransientError as error:
            log.warning("cannot follow what the clinic says of the consent, will try again: %s", error)

    def _accept(self, answer: ConsentAnswer) -> None:
        if answer.tag == subject_tag(self.hub, self.subject) and answer.number > self.state.number:
            state = ConsentState(answer.number, answer.purposes)
            self.outbox.put_many((), {STATE_KEY: state.to_bytes()})
            self.state = state
        for subject, withdrawal in read_withdrawals(self.data).items():
            if (subject_tag(self.hub, subject), withdrawal) == (answer.tag, answer.withdrawal):
                (self.data / WITHDRAWALS_FOLDER / subject).unlink(missing_ok=True)
        self._follow()

    async def watch(self, call: WorkerCall) -> NoReturn:
        """Follow what the patient withdraws, until cancelled."""
        while True:
            await asyncio.sleep(POLL_INTERVAL_S)
            try:
                await call(self._follow)
            except TransientError as error:
                log.warning("cannot delete what was not sent, will try again: %s", error)

    def _find(self) -> bool:
        return CARE in self.state.purposes and self.subject not in read_withdrawals(self.data)

    def _follow(self) -> None:
        """Start the agent's tasks again if the consent has changed."""
        is_given = self._find()
        if is_given == self.is_given:
            return
        if not is_given:
            self.outbox.stop_collecting()
        self.is_given = is_given
        action = Action.GIVE_CONSENT if is_given else Action.WITHDRAW_CONSENT
        objects = (object_id("purpose", CARE), object_id("change", self.state.number))
        agent = self.audit.log.agent()
        self.audit.append(AuditEvent(agent, action, Category.CONSENT, self.subject, objects, Purpose.SUBJECT_REQUEST))
        log.warning("consent was %s: the agent's tasks start again", "given" if is_given else "withdrawn")
        self._loop.call_soon_threadsafe(self.restart)

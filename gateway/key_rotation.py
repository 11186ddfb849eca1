"""Changes data keys and their wrapping while the agent runs: on demand, and when the clinic has a new key for a subject.

`pulsegate keys rotate` is another process than the agent, which alone writes to the buffer. It leaves a file in the data
folder, and the agent deletes that once the key has changed: one that is killed in between changes it again. A new registration
is the file that a renewal, or a person, put in place of the one before.
"""

import asyncio
import logging
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NoReturn

from config.files import replacing
from config.settings import Settings
from gateway.audit_events import AgentAudit
from gateway.startup import load_registration
from gateway.storage import Storage
from sync.audit import Action, AuditEvent, Category, object_id
from sync.errors import PermanentError, TransientError
from sync.outbox import Outbox
from sync.registration import Registration
from sync.signing import VerifyingKey

REQUEST_FILE: Final = "rotate-keys"
"""The file in the data folder that asks for a new data key. It is empty."""
POLL_INTERVAL_S: Final = 2.0
"""How often the agent looks for the two files: soon enough for a person who waits for it."""
log: Final = logging.getLogger(__name__)


def ask_for_rotation(data: Path) -> None:
    """Leave the request in a data folder.

    Raises:
        PermanentError: it cannot be written.
    """
    try:
        with replacing(data / REQUEST_FILE, durable=True):
            pass
    except OSError as error:
        raise PermanentError(f"cannot write to {data} ({error.strerror}): run this as the agent's user") from error


@dataclass(slots=True)
class KeyFollower:
    """Looks for a request and for a new registration. Call `step` on the storage thread."""

    settings: Settings
    outbox: Outbox
    audit: AgentAudit
    _seen: tuple[int, ...] = ()
    """Which registration file was looked at last."""

    def step(self) -> None:
        """Carry out what is found.

        Raises:
            TransientError: the buffer cannot be written now; the next call tries again.
        """
        self._rotate_if_asked()
        self._follow_registration()

    def _rotate_if_asked(self) -> None:
        request = self.settings.data / REQUEST_FILE
        if not request.exists():
            return
        id_ = self.outbox.rotate_key()
        objects = (object_id("data-key", id_.hex()),)
        self.audit.append(AuditEvent(self.audit.log.agent(), Action.CREATE_KEY, Category.KEYS, self.settings.subject, objects))
        log.info("changed to a new data key, as asked")
        with suppress(OSError):  # a folder that cannot be written now: the key changes again, which does no harm
            request.unlink()

    def _follow_registration(self) -> None:
        found = _identify(self.settings.clinic.registration)
        if found == self._seen:
            return
        try:
            registration = load_registration(self.settings)
        except PermanentError as error:
            log.error("the new registration is not used: %s", error)
        else:
            self._use(registration)
        self._seen = found

    def _use(self, registration: Registration) -> None:
        if _clinic_of(registration) != _clinic_of(self.audit.registration):
            log.warning("the new registration is of another clinic: it is used after the next start of the agent")
            return
        self.outbox.use_registration(registration)
        self.audit.note_registration(registration, self.settings.subject)


async def follow_keys(settings: Settings, storage: Storage, audit: AgentAudit) -> NoReturn:
    """Change data keys and their wrapping where files ask for it, until cancelled."""
    follower = KeyFollower(settings, storage.outbox, audit)
    while True:
        try:
            await storage.call(follower.step)
        except TransientError as error:
            log.warning("cannot change a data key now, will try again: %s", error)
        await asyncio.sleep(POLL_INTERVAL_S)


def _clinic_of(registration: Registration) -> tuple[str, VerifyingKey, VerifyingKey]:
    """Whose answers the agent accepts, since its start."""
    return registration.site, registration.acknowledgement, registration.receipt


def _identify(path: Path) -> tuple[int, ...]:
    """What changes with each replacement of a file; nothing if it is missing."""
    try:
        status = path.stat()
    except OSError:
        return ()
    return status.st_ino, status.st_mtime_ns, status.st_size

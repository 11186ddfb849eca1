"""`pulsegate consent`: shows whether the patient consents, and takes a withdrawal."""

import sys

from config.settings import Settings
from gateway.audit_log import open_audit_log
from gateway.clock import SystemClock
from gateway.consent import leave_withdrawal, read_state, read_withdrawals
from sync.audit import Action, AuditEvent, Category, Purpose, object_id
from sync.consent import CARE
from sync.errors import PermanentError


def consent(settings: Settings, action: str) -> int:
    """Run the command.

    Raises:
        SyncError: the data folder, the buffer or the audit log cannot be used.
    """
    if not settings.data.is_dir():
        raise PermanentError(f"there is no data folder {settings.data}: the agent has never run there")
    if action == "withdraw":
        _withdraw(settings)
    subject, withdrawals = settings.subject, read_withdrawals(settings.data)
    state = read_state(settings.data, subject)
    is_given = CARE in state.purposes and subject not in withdrawals
    _say(f"{subject} {'consents' if is_given else 'does not consent'} to {CARE}")
    if subject in withdrawals:
        _say("it was withdrawn here; the clinic has not recorded it yet: it does when this hub reaches it")
    if not is_given:
        _say("no sensor is connected, and nothing is stored or sent; to consent again, ask your clinic")
    return 0


def _withdraw(settings: Settings) -> None:
    """Log first: what is not logged is not done."""
    log = open_audit_log(settings, SystemClock().wall_us)
    objects = (object_id("purpose", CARE),)
    event = AuditEvent(
        log.operator(), Action.WITHDRAW_CONSENT, Category.CONSENT, settings.subject, objects, Purpose.SUBJECT_REQUEST
    )
    log.append(event)
    leave_withdrawal(settings.data, settings.subject)


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")

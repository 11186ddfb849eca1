"""`pulsegate consent`: shows whether the patient consents, and takes a withdrawal."""

import sys

from config.settings import Settings
from gateway.audit_log import open_audit_log
from gateway.clock import SystemClock
from gateway.consent import leave_withdrawal, read_state, read_withdrawals
from sync.audit import Action, AuditEvent, Category, Purpose, object_id
from sync.consent import CARE
from sync.errors import PermanentError, SyncError


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
    is_given = subject not in withdrawals and CARE in read_state(settings.data, subject).purposes
    _say(f"{subject} {'consents' if is_given else 'does not consent'} to {CARE}")
    if subject in withdrawals:
        _say("it was withdrawn here; the clinic has not recorded it yet: it does when this hub reaches it")
    if not is_given:
        _say("no sensor is connected, and nothing is stored or sent; to consent again, ask your clinic")
    return 0


def _withdraw(settings: Settings) -> None:
    """A log that cannot be written, for want of the hub key's passphrase, keeps no patient from it: agent and clinic log it."""
    leave_withdrawal(settings.data, settings.subject)
    try:
        log = open_audit_log(settings, SystemClock().wall_us)
        actor, objects = log.operator(), (object_id("purpose", CARE),)
        subject = settings.subject
        log.append(AuditEvent(actor, Action.WITHDRAW_CONSENT, Category.CONSENT, subject, objects, Purpose.SUBJECT_REQUEST))
    except SyncError as error:
        sys.stderr.write(f"pulsegate: the consent is withdrawn, but the audit log cannot be written here: {error}\n")


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")

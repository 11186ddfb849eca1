"""The consents of subjects: their changes, in the order of their numbers. Call the functions in a transaction of the store.

A subject for whom nothing is recorded consents by its registration: the clinic registers a hub for consenting patients only
(decision 24). A change gets the time as its number, so that a restored store does not go back behind what a hub knows.
"""

import hashlib
from typing import Final, NamedTuple

from sqlalchemy import Connection, func, select

from cloud.audit_actors import ORIGIN, service
from cloud.row_sets import RowQuery
from cloud.site_name import SITE
from cloud.store.audit import append_to_log, lock_log
from cloud.store.tables import consent_texts, consents, erased, insert
from sync.audit import Action, Actor, AuditEvent, Category, Role, object_id
from sync.audit import Purpose as Why
from sync.consent import CARE, ConsentAnswer, ToldConsent

AHEAD_LIMIT_US: Final = 366 * 86_400 * 1_000_000
"""A hub that names a change later than this after now is wrong: no clinic's clock was so far ahead."""
_later: Final = consents.alias()
WITHOUT_CONSENT: Final = RowQuery(
    [consents.c.subject],
    lambda are_wanted: select(consents.c.subject).where(
        are_wanted,
        consents.c.purpose == CARE,
        ~consents.c.is_given,
        ~select(_later.c.number)
        .where(
            _later.c.subject == consents.c.subject,
            _later.c.purpose == consents.c.purpose,
            _later.c.number > consents.c.number,
        )
        .exists(),
    ),
)
"""Those of some subjects who do not consent to their care here."""


class ConsentChange(NamedTuple):
    """A change of a subject's consent to one purpose: see the table."""

    subject: str
    number: int
    purpose: str
    is_given: bool
    at_us: int
    actor: str
    text: bytes | None = None
    hub: str | None = None
    withdrawal: int | None = None


def list_changes(connection: Connection, subject: str | None = None) -> list[ConsentChange]:
    """Return the changes of a subject, or of all, in their order."""
    columns = [consents.c[name] for name in ConsentChange._fields]
    query = select(*columns).order_by(consents.c.subject, consents.c.number)
    if subject is not None:
        query = query.where(consents.c.subject == subject)
    return [ConsentChange(*row) for row in connection.execute(query)]


def read_text(connection: Connection, digest: bytes) -> str | None:
    """Return a text that was agreed to; None if it is not kept."""
    return connection.execute(select(consent_texts.c.text).where(consent_texts.c.digest == digest)).scalar_one_or_none()


def consents_now(connection: Connection, subject: str) -> bool:
    """Return whether a subject consents to its care here. Nothing recorded means: by its registration."""
    return not WITHOUT_CONSENT.execute(connection, [(subject,)])


def give_consent(connection: Connection, subject: str, text: str, actor: Actor, now_us: int) -> ConsentChange:
    """Record that a subject consents to a text, and log it."""
    digest = hashlib.sha256(text.encode()).digest()
    statement = insert(connection, consent_texts).values(digest=digest, text=text)
    connection.execute(statement.on_conflict_do_nothing())
    return _record(connection, ConsentChange(subject, 0, CARE, True, now_us, actor.id, digest), actor)


def withdraw_consent(connection: Connection, subject: str, actor: Actor, now_us: int) -> ConsentChange:
    """Record that a subject does not consent any more, or never did, and log it."""
    return _record(connection, ConsentChange(subject, 0, CARE, False, now_us, actor.id), actor)


def answer_hub(connection: Connection, hub: str, subject: str, told: ToldConsent, now_us: int) -> ConsentAnswer | None:
    """Record what a patient withdrew at a hub; returns what the hub does not know yet, None if it knows all.

    If the hub knows of a later change than the store, this was restored from a backup: what cannot be proven is no consent.
    """
    is_erased = connection.execute(select(erased.c.subject).where(erased.c.subject == subject)).first() is not None
    if told.number > now_us + AHEAD_LIMIT_US or (is_erased and told.withdrawal is None):
        return None
    if is_erased:
        return ConsentAnswer(told.tag, told.number + 1, (), told.withdrawal)
    number = _last_number(connection, subject)
    if told.withdrawal is None and told.number == number:
        return None
    if told.withdrawal is not None and not _is_recorded(connection, hub, subject, told):
        actor = Actor(hub, Role.HUB, SITE)
        new = ConsentChange(subject, told.number, CARE, False, now_us, actor.id, None, hub, told.withdrawal)
        number = _record(connection, new, actor).number
    elif told.number > number:
        actor = service("consent")
        number = _record(connection, ConsentChange(subject, told.number, CARE, False, now_us, actor.id), actor).number
    purposes = (CARE,) if consents_now(connection, subject) else ()
    return ConsentAnswer(told.tag, number, purposes, told.withdrawal)


def delete_consents(connection: Connection, subject: str) -> None:
    """Delete the changes of a subject that is erased. The audit log keeps that they were made."""
    connection.execute(consents.delete().where(consents.c.subject == subject))


def _record(connection: Connection, change: ConsentChange, actor: Actor) -> ConsentChange:
    """Number a change above the last one and above its own number, and log it."""
    lock_log(connection, ORIGIN)  # no other process numbers a change until this transaction ends
    number = max(_last_number(connection, change.subject) + 1, change.number + 1, change.at_us)
    change = change._replace(number=number)
    action = Action.GIVE_CONSENT if change.is_given else Action.WITHDRAW_CONSENT
    text = (object_id("text", f"sha256-{change.text.hex()[:16]}"),) if change.text is not None else ()
    event = AuditEvent(
        actor,
        action,
        Category.CONSENT,
        change.subject,
        (object_id("purpose", change.purpose), object_id("change", number), *text),
        Why.SUBJECT_REQUEST,
    )
    append_to_log(connection, ORIGIN, [event], change.at_us)
    connection.execute(consents.insert().values(**change._asdict()))
    return change


def _last_number(connection: Connection, subject: str) -> int:
    query = select(func.coalesce(func.max(consents.c.number), 0)).where(consents.c.subject == subject)
    return int(connection.execute(query).scalar_one())


def _is_recorded(connection: Connection, hub: str, subject: str, told: ToldConsent) -> bool:
    of = consents.c
    query = select(of.number).where(of.subject == subject, of.hub == hub, of.withdrawal == told.withdrawal)
    return connection.execute(query).first() is not None

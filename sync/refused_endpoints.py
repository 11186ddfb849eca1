"""Endpoints that this process may not use, as events of the audit log at either end."""

from collections.abc import Mapping

from sync.audit import Action, Actor, AuditEvent, Category, Outcome, Purpose, object_id


def endpoint_events(actor: Actor, refused: Mapping[str, int]) -> tuple[AuditEvent, ...]:
    """Return an event for each refused endpoint, with how often it was refused."""
    return tuple(
        AuditEvent(
            actor,
            Action.REFUSE_ENDPOINT,
            Category.SERVICE,
            None,
            (object_id("endpoint", endpoint),),
            Purpose.SECURITY,
            Outcome.REFUSED,
            count=count,
        )
        for endpoint, count in refused.items()
    )

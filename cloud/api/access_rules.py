"""The access rule of every route. An application with a route that has none does not start."""

from collections.abc import Iterable, Mapping
from enum import Enum
from typing import Final

from starlette.routing import BaseRoute


class Rule(Enum):
    """Who may use a route."""

    STAFF = "a person with a staff certificate of the site; in the demo on loopback, everybody on this computer"


RULES: Final[Mapping[str, Rule]] = {
    "/": Rule.STAFF,
    "/static": Rule.STAFF,
    "/static/reporting": Rule.STAFF,
    "/api/patients": Rule.STAFF,
    "/api/alerts": Rule.STAFF,
    "/api/alerts/{id_:path}": Rule.STAFF,
    "/api/sensors": Rule.STAFF,
    "/api/ecg": Rule.STAFF,
    "/api/judged": Rule.STAFF,
    "/api/vitals": Rule.STAFF,
    "/api/hubs": Rule.STAFF,
    "/api/commands": Rule.STAFF,
    "/api/counters": Rule.STAFF,
    "/ws": Rule.STAFF,
}
"""By the path of the route, as the application declares it."""


def check_rules(routes: Iterable[BaseRoute]) -> None:
    """Check that every route has a rule.

    Raises:
        LookupError: one has none.
    """
    for route in routes:
        path = getattr(route, "path", None)
        if path not in RULES:
            raise LookupError(f"the route {path} has no access rule: add it to RULES")

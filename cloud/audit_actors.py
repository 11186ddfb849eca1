"""Who acts at this site, as the audit log names them."""

from typing import Final

from cloud.site_name import SITE
from sync.audit import Actor, End, Origin, Role, account

ORIGIN: Final = Origin(End.SITE, SITE)
"""Whose log the site's is."""


def service(name: str) -> Actor:
    """A service of this site."""
    return Actor(name, Role.SERVICE, SITE)


def operator() -> Actor:
    """The person who runs a command, by their account."""
    return Actor(account(), Role.OPERATOR, SITE)


def staff(name: str) -> Actor:
    """A person, by the name in their staff certificate."""
    return Actor(name, Role.STAFF, SITE)


def asking_reader(id_: str, role: str) -> Actor:
    """Who asked for a command from the page, as `staff` or `LOOPBACK` named them then."""
    return Actor(id_, role, SITE)


LOOPBACK: Final = Actor("loopback", Role.VIEWER, SITE)
"""A viewer on this computer, who has no certificate."""

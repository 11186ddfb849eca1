"""Who acts at this site, as the audit log names them."""

import os
from typing import Final

from cloud.site_name import SITE
from sync.audit import Actor, End, Origin, Role

ORIGIN: Final = Origin(End.SITE, SITE)
"""Whose log the site's is."""


def service(name: str) -> Actor:
    """A service of this site."""
    return Actor(name, Role.SERVICE, SITE)


def operator() -> Actor:
    """The person who runs a command, by the number of the system's user: names are not logged."""
    return Actor(f"uid-{os.getuid()}", Role.OPERATOR, SITE)


def staff(name: str) -> Actor:
    """A person, by the name in their staff certificate."""
    return Actor(name, Role.STAFF, SITE)


def asking_reader(id_: str, role: str) -> Actor:
    """Who asked for a command from the page, as `staff` or `LOOPBACK` named them then."""
    return Actor(id_, role, SITE)


LOOPBACK: Final = Actor("loopback", Role.VIEWER, SITE)
"""A viewer on this computer, who has no certificate."""

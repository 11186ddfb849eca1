"""The name of the site, in acknowledgements, registrations and the audit log. There is one site."""

from typing import Final

SITE: Final = "main"

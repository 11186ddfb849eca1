"""One site: its certification authority, and the configuration of its broker."""

from cloud.site.authority import Authority
from cloud.site.certificates import Kind

__all__ = ["Authority", "Kind"]

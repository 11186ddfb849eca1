"""Addresses of Bumble as text."""

from bumble import hci


def format_address(address: hci.Address) -> str:
    """Return an address in capitals, with colons and without its type."""
    text: str = address.to_string(with_type_qualifier=False)
    return text

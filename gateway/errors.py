"""Errors of the agent whose message is meant for the user."""


class RadioError(Exception):
    """The Bluetooth stack cannot be used. The message says why and what to do."""

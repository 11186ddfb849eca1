"""The clinic's own error for failed starts."""


class ClinicError(Exception):
    """The clinic cannot start. The message is one line that says why and what to do."""

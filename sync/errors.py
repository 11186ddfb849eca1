"""Two kinds of failure. What to do about one follows from its class, never from its message."""


class SyncError(Exception):
    """Something between a reading and the clinic's store failed. The message says what, to what, and what to do."""


class Transient(SyncError):  # noqa: N818 - it names the kind, as the design does
    """It may succeed later, unchanged: a broker away, a full disk, a locked database. Try again with back-off."""


class Permanent(SyncError):  # noqa: N818 - it names the kind, as the design does
    """The same attempt will never succeed: a wrong key, a malformed message, a damaged or newer database. A person must act."""

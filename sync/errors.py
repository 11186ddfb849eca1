"""The two classes of failure. Callers decide how to react by the class of an error, never by its message."""


class SyncError(Exception):
    """A step between a reading and the clinic's store failed. The message says what failed, on what, and what to do."""


class TransientError(SyncError):
    """A retry with back-off may succeed: the broker is unreachable, the disk full, or the database locked."""


class DiskFullError(TransientError):
    """A write failed because the disk has no room. What was stored before is kept."""


class PermanentError(SyncError):
    """A retry cannot succeed: a wrong key, a malformed message, a damaged or newer database. A person must act."""


class DamagedBufferError(PermanentError):
    """The buffer's database is damaged. The next opening salvages what is readable."""

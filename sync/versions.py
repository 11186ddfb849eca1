"""Versions of the protocol: its format, which is part of everything that is signed, and its revision within the format.

A new revision only adds what the other end may ignore, so that hub N and N-1 work with clinic N and N-1. A hub says its
revision in its status; a hub without a status has revision 0. `docs/protocol.md`, "Versions", is the reference.
"""

from typing import Final

REVISION: Final = 1
"""The revision that this pulsegate speaks. 1 added the status, `retry_after_s` and `update_by_s`, and the reason `outdated`."""
FIRST_REVISION: Final = 0
"""That of a hub that never sent a status."""
ACCEPTED_REVISIONS: Final = (REVISION - 1, REVISION)
"""Revisions of which a clinic takes everything: those of the present release and of the one before it. It takes everything of
newer hubs, too: they are made for this clinic's revision."""
OUTDATED: Final = "outdated"
"""Reason to refuse a block: its hub's agent is too old. The hub keeps the block, and sends it when the agent was updated."""
OUTDATED_REVISION: Final = 1
"""The first revision whose hubs know `OUTDATED`: older ones delete whatever is refused."""

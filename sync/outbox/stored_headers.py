"""Restores the header of a block that was damaged while it was stored.

The clinic could not acknowledge the block, or would take it for another one. All fields of the header but the nonce are known
from the block's row in the buffer.
"""

import logging
from typing import Final

from sync.outbox.header_templates import HeaderTemplate
from sync.seal import NONCE_BYTES
from sync.wire import BlockId

log: Final = logging.getLogger(__name__)


def restore_header(id_: BlockId, template: HeaderTemplate, sealed: bytes) -> bytes:
    """The block, with its header restored if it is not the one that it was stored with."""
    nonce_end = len(template.before) + NONCE_BYTES
    if sealed.startswith(template.before) and sealed.startswith(template.after, nonce_end):
        return sealed
    log.warning("restored the damaged header of block %d of epoch %d in lane %s", id_.seq, id_.epoch, id_.lane)
    body = sealed[nonce_end + len(template.after) :]
    return template.before + sealed[len(template.before) : nonce_end] + template.after + body

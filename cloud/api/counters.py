"""The counters of `/api/counters`: numbers of the store and of the projections, all of one moment."""

from typing import Final

from sqlalchemy import Engine

from cloud.api import queries
from cloud.api.numbers import Json
from cloud.scope import EVERY_SUBJECT, Scope
from cloud.store import Store

MAX_READINGS: Final = 10
"""Readings take some ms each, blocks arrive some ten times a second: a second reading is rarely needed, a tenth never."""


def read_counters(store: Store, engine: Engine, scope: Scope) -> Json:
    """Return the numbers of blocks, conflicting keys, rejected messages and copied hubs, and what the opened blocks hold.

    The store does not know whose its blocks and keys are, so that its numbers are for the scope of every subject only.

    Two databases have no common snapshot. Blocks are only ever added: if the store's counts are the same before and after the
    projections are read, all numbers belong to the moment of that reading. Under a load that never pauses, `stored` may count
    blocks that came a few ms later; it is never less than `opened` and `unopened` together.
    """
    if scope != EVERY_SUBJECT:
        return queries.read_counters(engine, scope)
    counts, opened = store.counts(), queries.read_counters(engine, scope)
    for _ in range(MAX_READINGS):
        after = store.counts()
        if after == counts:
            break
        counts, opened = after, queries.read_counters(engine, scope)
    else:
        counts = store.counts()
    blocks = counts._asdict()
    others = {
        "keys": {"conflicts": blocks.pop("key_conflicts")},
        "messages": {"rejected": blocks.pop("rejected_messages")},
        "hubs": {"copied": blocks.pop("copied_hubs")},
    }
    return opened | {"blocks": blocks | opened["blocks"]} | others

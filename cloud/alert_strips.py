"""The strips of alerts in the projections: those of the latest episode and of the longest one, each part once.

Within an episode a strip of all of it, or of its first part, begins anew: it takes the place of those before it. The later
position in the lane wins, whatever the order in which blocks are opened.
"""

import json
from collections.abc import Iterable
from typing import Final, NamedTuple

from sqlalchemy import select
from sqlalchemy.engine import Connection

from cloud import tables
from cloud.changes import AlertKey, BlockOrigin
from sync.packing import pack_samples
from sync.records import EPISODES_KEY, LENGTH_KEY, AlertRecord, Strip

WHOLE: Final = ""
PARTS: Final = ("first", "worst", "last", WHOLE)
"""The parts in the order in which they are shown."""
BEGINNINGS: Final = ("first", WHOLE)
LONGEST: Final = "longest:"
"""Before the part of a strip of the longest episode, where it is not the latest one."""
MAX_PARTS: Final = 8
"""Parts of one episode. This version knows four; a newer hub may send others."""
MAX_EPISODES: Final = 1 << 53
"""Whole numbers up to this are exact in a record."""


class HeldStrip(NamedTuple):
    """One strip of an alert: its place in the lane, the number of its episode in the alert, and how long that had lasted."""

    position: tuple[int, int]
    episode: int
    episode_s: float
    part: str


def write_strip(connection: Connection, key: AlertKey, record: AlertRecord, strip: Strip, origin: BlockOrigin) -> None:
    """Keep the strip of an alert's record, unless a later one took its place."""
    table = tables.alert_strips
    this = [table.c[name] == value for name, value in key._asdict().items()]
    columns = select(table.c.epoch, table.c.seq, table.c.episode, table.c.episode_s, table.c.part).where(*this)
    held = {
        HeldStrip((row.epoch, row.seq), row.episode or 1, row.episode_s or 0.0, row.part.removeprefix(LONGEST)): row.part
        for row in connection.execute(columns)
    }
    new = HeldStrip(origin.position, *_episode_of(record), strip.part or WHOLE)
    kept = choose_strips([*held, new])
    for gone in held.keys() - kept.keys():
        connection.execute(table.delete().where(*this, table.c.part == held[gone]))
    for moved in (one for one in held if one in kept and kept[one] != held[one]):
        connection.execute(table.update().where(*this, table.c.part == held[moved]).values(part=kept[moved]))
    if new in kept and new not in held:
        connection.execute(table.insert().values(**key._asdict(), part=kept[new], **_columns(new, strip)))


def choose_strips(strips: Iterable[HeldStrip]) -> dict[HeldStrip, str]:
    """Return which strips of an alert are kept, and the part under which each is stored."""
    by_episode: dict[int, list[HeldStrip]] = {}
    for one in sorted(strips, key=lambda one: (*one[:-1], one.part == WHOLE)):
        shown = by_episode.setdefault(one.episode, [])
        shown[:] = [] if one.part in BEGINNINGS else [other for other in shown if other.part != one.part]
        if len(shown) < MAX_PARTS:
            shown.append(one)
    latest = max(by_episode.values(), key=max)
    longest = max(by_episode.values(), key=lambda shown: (max(one.episode_s for one in shown), max(shown)))
    apart = {} if longest is latest else {one: LONGEST + one.part for one in longest}
    return {one: one.part for one in latest} | apart


def _episode_of(record: AlertRecord) -> tuple[int, float]:
    """Return the number of the latest episode in its alert and its length so far, which a record about one does not state."""
    measured = record.measured or {}
    if EPISODES_KEY in measured:
        return round(min(max(measured[EPISODES_KEY], 1.0), MAX_EPISODES)), measured.get(LENGTH_KEY, 0.0)
    return 1, 0.0 if record.end_us is None else (record.end_us - record.onset_us) / 1e6


def _columns(held: HeldStrip, strip: Strip) -> dict[str, object]:
    epoch, seq = held.position
    return {
        "epoch": epoch,
        "seq": seq,
        "start_us": strip.start_us,
        "rate_hz": strip.rate_hz,
        "scale": strip.scale,
        "samples": pack_samples(strip.samples),
        "beats_us": json.dumps(strip.beats_us),
        "labels": strip.labels,
        "mark_from_us": strip.mark_from_us,
        "mark_to_us": strip.mark_to_us,
        "episode": held.episode,
        "episode_s": held.episode_s,
    }

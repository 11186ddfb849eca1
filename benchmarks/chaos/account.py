"""The account: compares what the hubs were told is durable with what the clinic has opened, and the marks of both ends.

A number is acknowledged-lost if a hub's journal has it and the clinic does not. It is unexplained if it is neither opened nor
between the ends of a gap record. Only a buffer that a person replaced by an older one may lose numbers: those that it had not
sent, and a gap record must name them, too.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Final

from sqlalchemy import Connection, func, select

from benchmarks.block_account import read_buffer
from benchmarks.chaos.agents import SENSOR as AGENT_SENSOR
from benchmarks.chaos.hub import ALERT_EVERY, NS_PER_TICK, read_journal
from benchmarks.chaos.site import PROJECTIONS, STORE, Hub, Site
from cloud import tables
from cloud.completeness import SequenceId, read_completeness
from cloud.store import tables as store_tables
from sync.wire import BlockId

Writer = tuple[str, str]
"""A hub's name and the name of its sensor."""
Span = tuple[int, int]
"""Numbers between two: the last before and the first after, neither is missing."""


@dataclass(frozen=True, slots=True)
class Opened:
    """What the clinic has opened of one writer: how often each number is there in each lane, and its gaps."""

    vitals: Counter[int]
    waveforms: Counter[int]
    alerts: Counter[int]
    gaps: tuple[Span, ...] = ()
    steps: tuple[Span, ...] = ()
    """Pairs of numbers that followed each other: nothing was to be stored between them."""


@dataclass(frozen=True, slots=True)
class Account:
    """Counts of numbers and blocks. Every count from `lost` on must be 0.

    Attributes:
        acknowledged: numbers that hubs were told are durable.
        opened: numbers that the clinic has opened.
        in_gaps: numbers that were not stored, and that a gap record explains.
        rolled_back: numbers that were lost with a buffer that was replaced by an older one; gap records explain them.
        blocks: blocks in the clinic's store.
        lost: acknowledged numbers that the clinic does not have, in one of the lanes.
        duplicates: numbers that the clinic has opened more than once.
        unexplained: numbers that are neither opened nor in a gap.
        invented: alerts and waveforms without a vital sign of their number.
        missing_blocks: blocks that the clinic knows of and does not hold, of no buffer that was replaced.
        set_aside: blocks in quarantine, that could not be opened, or that conflict with others.
    """

    acknowledged: int
    opened: int
    in_gaps: int
    rolled_back: int
    blocks: int
    lost: int
    duplicates: int
    unexplained: int
    invented: int
    missing_blocks: int
    set_aside: int

    @property
    def passed(self) -> bool:
        counts = (self.lost, self.duplicates, self.unexplained, self.invented, self.missing_blocks, self.set_aside)
        return not any(counts)

    def counts(self) -> dict[str, int]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class WriterAccount:
    """The counts of one writer; `lost` and `unexplained` are the numbers themselves."""

    acknowledged: int
    opened: int
    in_gaps: int
    rolled_back: int
    lost: tuple[int, ...]
    duplicates: int
    unexplained: tuple[int, ...]
    invented: int


_NOTHING: Final = Opened(Counter(), Counter(), Counter())


def account_writer(journal: Sequence[int], opened: Opened, rolled_back: Sequence[Span]) -> WriterAccount:
    """Compare a journal with what was opened. `rolled_back` are stretches whose numbers may be lost."""
    acknowledged, vitals = set(journal), opened.vitals
    absent = acknowledged - vitals.keys()
    excused = {number for number in absent if _is_within(number, rolled_back)}
    lost = absent - excused
    for lane, every in ((opened.waveforms, 1), (opened.alerts, ALERT_EVERY)):
        of_lane = {number for number in acknowledged if number % every == 0}
        lost |= {number for number in of_lane - lane.keys() if not _is_within(number, rolled_back)}
    known = acknowledged | vitals.keys()
    between = range(min(known), max(known) + 1) if known else range(0)
    quiet, explained = _numbers_inside(opened.steps) - acknowledged, _numbers_inside(opened.gaps)
    missing = [number for number in between if number not in vitals and number not in quiet]
    unexplained = [number for number in missing if number not in explained]
    duplicates = sum(n - 1 for lane in (vitals, opened.waveforms, opened.alerts) for n in lane.values())
    invented = (opened.waveforms.keys() | opened.alerts.keys()) - vitals.keys()
    return WriterAccount(
        acknowledged=len(acknowledged),
        opened=len(vitals),
        in_gaps=len(missing) - len(unexplained) - len(excused),
        rolled_back=len(excused),
        lost=tuple(sorted(lost)),
        duplicates=duplicates,
        unexplained=tuple(unexplained),
        invented=len(invented),
    )


def _is_within(number: int, stretches: Iterable[Span]) -> bool:
    return any(first < number <= last for first, last in stretches)


def _numbers_inside(spans: Iterable[Span]) -> set[int]:
    return {number for before, after in spans for number in range(before + 1, after)}


def account_site(site: Site, *, with_agents: bool = False) -> tuple[Account, list[str]]:
    """Compare all journals with the clinic's databases; returns the counts, and a line for each number or block that is wrong.

    `with_agents` counts the missing blocks of the whole agents, too: while they run, some are on their way.
    """
    agents = {agent.hub for agent in site.agents}
    with site.engine(PROJECTIONS).connect() as connection:
        opened = {writer: one for writer, one in read_opened(connection).items() if writer[0] not in agents}
        unopened = connection.execute(select(func.count()).select_from(tables.unopened)).scalar_one()
    with site.engine(STORE).connect() as connection:
        blocks = connection.execute(select(func.count()).select_from(store_tables.blocks)).scalar_one()
        state = connection.execute(select(store_tables.state)).one()
        missing = {(hub, id_) for hub, id_ in list_missing(connection) if with_agents or hub not in agents}
    writers = {(hub.name, hub.settings.writer): hub for hub in [*site.hubs, *site.retired]}
    found = {
        writer: account_writer(read_journal(hub.journal), opened.get(writer, _NOTHING), hub.rolled_back)
        for writer, hub in writers.items()
    }
    excused = set[tuple[str, BlockId]]()
    for hub in site.hubs:
        excused |= {(hub.name, id_) for path in hub.discarded for id_ in read_buffer(path)}
    wrong = missing - excused
    problems = [
        f"{'/'.join(writer)}: lost {one.lost}, unexplained {one.unexplained}"
        for writer, one in found.items()
        if one.lost or one.unexplained
    ]
    problems += [f"{hub}: block {id_} is missing" for hub, id_ in sorted(wrong)]
    problems += [f"{'/'.join(writer)} has no journal" for writer in opened.keys() - writers.keys()]
    accounts = found.values()
    return Account(
        acknowledged=sum(one.acknowledged for one in accounts),
        opened=sum(one.opened for one in accounts),
        in_gaps=sum(one.in_gaps for one in accounts),
        rolled_back=sum(one.rolled_back for one in accounts),
        blocks=blocks,
        lost=sum(len(one.lost) for one in accounts),
        duplicates=sum(one.duplicates for one in accounts),
        unexplained=sum(len(one.unexplained) for one in accounts),
        invented=sum(one.invented for one in accounts) + len(opened.keys() - writers.keys()),
        missing_blocks=len(wrong),
        set_aside=unopened + state.quarantined + state.conflicts + state.key_conflicts + state.rejected_messages,
    ), problems


def read_opened(connection: Connection) -> dict[Writer, Opened]:
    """Return what the projections hold of each writer."""
    vitals, waveforms = defaultdict[Writer, Counter[int]](Counter), defaultdict[Writer, Counter[int]](Counter)
    alerts, gaps = defaultdict[Writer, Counter[int]](Counter), defaultdict[Writer, list[Span]](list)
    rows = tables.vitals.c
    steps = defaultdict[Writer, list[Span]](list)
    for hub, sensor, value, flags in connection.execute(select(rows.hub, rows.sensor, rows.value, rows.flags)):
        vitals[hub, sensor][int(value)] += 1
        if sensor != AGENT_SENSOR:
            steps[hub, sensor] += [(int(before), int(value)) for before in json.loads(flags)]
    waves = tables.waveforms.c
    for hub, sensor, sensor_ns in connection.execute(select(waves.hub, waves.sensor, waves.sensor_ns)):
        waveforms[hub, sensor][sensor_ns // NS_PER_TICK] += 1
    found = tables.alerts.c
    for hub, sensor, id_ in connection.execute(select(found.hub, found.sensor, found.id)):
        if id_.startswith(f"{sensor}-"):  # the others are of whole agents
            alerts[hub, sensor][int(id_.rpartition("-")[2])] += 1
    spans = tables.gaps.c
    query = select(spans.hub, spans.sensor, spans.from_sensor_ns, spans.to_sensor_ns)
    for hub, sensor, before, after in connection.execute(query.where(spans.to_sensor_ns.is_not(None))):
        gaps[hub, sensor].append((before // NS_PER_TICK, after // NS_PER_TICK))
    return {
        writer: Opened(vitals[writer], waveforms[writer], alerts[writer], tuple(gaps[writer]), tuple(steps[writer]))
        for writer in vitals.keys() | waveforms.keys() | alerts.keys()
    }


def list_missing(connection: Connection) -> set[tuple[str, BlockId]]:
    """Return the blocks that the clinic knows of and does not hold."""
    found = read_completeness(connection)
    blocks = store_tables.blocks.c
    for hub, lane, epoch, seq in connection.execute(select(blocks.hub, blocks.lane, blocks.epoch, blocks.seq)):
        found.held[SequenceId(hub, lane, epoch)].add(seq)
    return {
        (gap.hub, BlockId(gap.lane, gap.epoch, seq))  # type: ignore[arg-type]
        for gap in [*found.missing(), *found.lost()]
        for seq in range(gap.first, gap.last + 1)
    }


def compare_marks(connection: Connection, hub: Hub, status: Mapping[str, object]) -> list[str]:
    """Return a line for each lane of a hub's present epoch whose end, and mark at the two ends, are not the same."""
    marks = store_tables.marks.c
    query = select(marks.lane, marks.seq).where(marks.hub == hub.name, marks.epoch == status["epoch"])
    held = {lane: seq for lane, seq in connection.execute(query)}  # noqa: C416  a row is no tuple for mypy
    heads: Mapping[str, Sequence[int]] = status["heads"]  # type: ignore[assignment]
    return [
        f"{hub.name}: lane {lane} ends at {seq}, the hub's mark is {mark}, the clinic's {held.get(lane, 0)}"
        for lane, (seq, mark) in heads.items()
        if not seq == mark == held.get(lane, 0)
    ]


def count_work(connection: Connection) -> int:
    """Return how many stored blocks wait for the opener."""
    return int(connection.execute(select(func.count()).select_from(store_tables.work)).scalar_one())

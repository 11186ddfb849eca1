"""Checks a whole audit log: its rows, its own signed head, its cut, and the heads that the other ends hold of it."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from sync.audit import ROWS, Action, AuditRow, ChainError, Origin, Position, follow_rows, log_start, object_id
from sync.audit_heads import CutNote, SignedHead, check_cut, check_head
from sync.signing import SignatureError, VerifyingKey


@dataclass(frozen=True, slots=True)
class StoredLog:
    """A log as it is stored.

    Args:
        origin: whose log it is.
        rows: all rows (number, encoded row) in the order of their numbers.
        cut: the note of the last cut; None if nothing was cut.
        signed: the last head that the log's own end signed; None if there is none.
        held: the highest head of this log that each other end holds, by a name of that end.
    """

    origin: Origin
    rows: Iterable[tuple[int, bytes]]
    cut: CutNote | None
    signed: SignedHead | None
    held: Mapping[str, SignedHead] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Finding:
    """What is wrong, and the first row that it is about (0: the whole log)."""

    row: int
    text: str


@dataclass(frozen=True, slots=True)
class LogReport:
    """The result of a check.

    `first` and `last` are the numbers of the rows that are there (last < first: none). `anchored` is the highest row that
    another end can prove, 0 if none, and `anchored_by` that end. `unanchored_since_us` is the time of the first row behind it.
    """

    findings: tuple[Finding, ...]
    first: int
    last: int
    anchored: int
    anchored_by: str | None
    unanchored_since_us: int | None


def check_log(log: StoredLog, key: VerifyingKey | None) -> LogReport:
    """Check a log. `key` is its audit key, None if that is missing: then no head can be checked, which is a finding."""
    return _Check(log, key).run()


class _Check:
    def __init__(self, log: StoredLog, key: VerifyingKey | None) -> None:
        self._log, self._key = log, key
        self._findings: list[Finding] = []
        self._heads = self._valid_heads()
        self._wanted = {head.number for head in self._heads.values()}
        self._places: dict[int, bytes] = {}
        self._times_us: dict[int, int] = {}
        """The time of the row behind each wanted one."""
        self._is_cut_logged = log.cut is None

    def run(self) -> LogReport:
        start = self._start()
        place = self._follow(start)
        self._compare_heads(start, place)
        others = {name: head.number for name, head in self._heads.items() if name}
        held = [name for name in others if self._places.get(others[name]) == self._heads[name].head]
        by = max(held, key=lambda name: (others[name], name), default=None)
        anchored = 0 if by is None else others[by]
        since_us = self._times_us.get(max(anchored, start.number)) if place.number > anchored else None
        return LogReport(tuple(self._findings), start.number + 1, place.number, anchored, by, since_us)

    def _valid_heads(self) -> dict[str, SignedHead]:
        """The own head (named "") and those of the others, as far as they are signed by the log's key."""
        heads = {**({"": self._log.signed} if self._log.signed else {}), **self._log.held}
        if self._key is None:
            self._find(0, "the audit key is missing, so no head of the log can be checked: restore it from a backup")
            return {}
        valid: dict[str, SignedHead] = {}
        for name, head in heads.items():
            try:
                check_head(self._key, self._log.origin, head)
                valid[name] = head
            except SignatureError:
                whose = f"that {name} holds" if name else "of the log itself"
                self._find(head.number, f"the head {whose} (row {head.number}) is not signed by the audit key of this log")
        return valid

    def _start(self) -> Position:
        cut = self._log.cut
        start = log_start(self._log.origin) if cut is None else cut.position
        if cut is not None and self._key is not None:
            try:
                check_cut(self._key, self._log.origin, cut)
            except SignatureError:
                self._find(
                    cut.number, f"the note that rows up to {cut.number} were cut is not signed by the audit key of this log"
                )
        return start

    def _follow(self, start: Position) -> Position:
        place = start
        self._places[start.number] = start.head
        self._wanted.add(start.number)
        try:
            for row, after in follow_rows(self._log.origin, start, self._log.rows):
                self._note(row, place.number)
                place = after
                if place.number in self._wanted:
                    self._places[place.number] = place.head
        except ChainError as error:
            self._find(error.row, str(error))
        if not self._is_cut_logged:
            self._find(start.number, f"rows up to {start.number} were cut, but no row of the log says so")
        return place

    def _note(self, row: AuditRow, previous: int) -> None:
        if previous in self._wanted:
            self._times_us[previous] = row.at_us
        cut = self._log.cut
        if cut is not None and row.event.action == Action.CUT_LOG and object_id(ROWS, cut.number) in row.event.objects:
            self._is_cut_logged = True

    def _compare_heads(self, start: Position, end: Position) -> None:
        if any(finding.row > start.number for finding in self._findings):
            return  # the rows behind a broken one prove nothing
        for name, head in self._heads.items():
            whose = f"{name} holds" if name else "this log itself has"
            if head.number > end.number:
                missing = f"rows {end.number + 1} to {head.number} were removed, or the database is an older copy"
                self._find(
                    end.number + 1, f"{whose} a signed head of row {head.number}, but the log ends at {end.number}: {missing}"
                )
            elif head.number >= start.number and self._places[head.number] != head.head:
                changed = "the log was rewritten, or is an older copy that has grown since"
                self._find(head.number, f"{whose} a signed head that row {head.number} does not have: {changed}")

    def _find(self, row: int, text: str) -> None:
        self._findings.append(Finding(row, text))

"""Audit logs: every change of a row, every removal, move and insertion, every cut tail and older copy is found."""

import json
from pathlib import Path
from typing import Any

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sync.audit import (
    ROWS,
    Action,
    Actor,
    AuditEvent,
    AuditRow,
    Category,
    ChainError,
    End,
    Origin,
    Position,
    account,
    append_events,
    follow_rows,
    hash_row,
    log_start,
    object_id,
)
from sync.audit_check import LogReport, StoredLog, check_log
from sync.audit_heads import (
    HubAudit,
    SignedHead,
    SiteAudit,
    certify_audit_key,
    check_head,
    cut_from_bytes,
    cut_to_bytes,
    head_from_bytes,
    head_to_bytes,
    hub_audit_from_bytes,
    hub_audit_to_bytes,
    parse_site_audit,
    read_audit_key,
    sign_cut,
    sign_head,
    site_audit_as_list,
)
from sync.audit_text import describe_report, describe_row, row_as_json
from sync.signing import SignatureError, SigningKey, Use
from sync.wire import WireError

VECTOR: dict[str, Any] = json.loads((Path(__file__).parent / "vectors" / "audit_1.json").read_text())
SITE = Origin(End.SITE, "main")
KEY, OTHER_KEY = SigningKey.generate(Use.AUDIT), SigningKey.generate(Use.AUDIT)
DEVICE = SigningKey.generate(Use.DEVICE)
CLINIC = Actor("clinic", "service", "main")
AT_US = 1_790_000_000_000_000
Rows = list[tuple[int, bytes]]

tokens = st.sampled_from(["a", "Z9", "uid-1000", "hub:hub-1", "x/y+z._:", "0" * 80])
names = st.sampled_from(["subject-1", "S.2_x", "9" * 64])
events = st.builds(
    AuditEvent,
    st.builds(Actor, tokens, tokens, tokens),
    tokens,
    tokens,
    st.none() | names,
    st.lists(tokens, max_size=3).map(tuple),
    tokens,
    tokens,
    st.none() | tokens,
    st.integers(1, 1000),
)
logs = st.lists(events, min_size=2, max_size=6)


def make_rows(found: list[AuditEvent], origin: Origin = SITE, at_us: int = AT_US, after: Position | None = None) -> Rows:
    return [(row.number, encoded) for row, encoded in append_events(origin, after or log_start(origin), found, at_us)]


def end_of(rows: Rows) -> Position:
    return Position(rows[-1][0], hash_row(rows[-1][1]))


def event(number: int = 0) -> AuditEvent:
    return AuditEvent(CLINIC, Action.START, Category.SERVICE, None, (object_id("number", number),))


def check(rows: Rows, **changes: Any) -> LogReport:
    arguments: dict[str, Any] = {"origin": SITE, "rows": rows, "cut": None, "signed": None} | changes
    return check_log(StoredLog(**arguments), KEY.public)


@given(logs)
def test_a_row_is_read_as_it_was_written(found: list[AuditEvent]) -> None:
    rows = make_rows(found)
    followed = list(follow_rows(SITE, log_start(SITE), rows))
    assert [row.event for row, _ in followed] == found
    assert followed[-1][1] == end_of(rows)
    assert check(rows, signed=sign_head(KEY, SITE, end_of(rows))).findings == ()


@given(logs, st.data())
def test_each_changed_bit_is_found(found: list[AuditEvent], data: st.DataObject) -> None:
    rows = make_rows(found)
    signed = sign_head(KEY, SITE, end_of(rows))
    at = data.draw(st.integers(0, len(rows) - 1))
    number, encoded = rows[at]
    bit = data.draw(st.integers(0, 8 * len(encoded) - 1))
    changed = (int.from_bytes(encoded) ^ (1 << bit)).to_bytes(len(encoded))
    findings = check([*rows[:at], (number, changed), *rows[at + 1 :]], signed=signed).findings
    assert findings
    assert number <= findings[0].row <= number + 1


@given(logs, st.data())
def test_each_removed_or_moved_or_inserted_row_is_found(found: list[AuditEvent], data: st.DataObject) -> None:
    rows = make_rows(found)
    signed = sign_head(KEY, SITE, end_of(rows))
    at = data.draw(st.integers(0, len(rows) - 1))
    without = [*rows[:at], *rows[at + 1 :]]
    renumbered = [(number, encoded) for number, (_, encoded) in enumerate(without, 1)]
    other = data.draw(st.integers(0, len(rows) - 1).filter(lambda index: index != at))
    swapped = list(rows)
    swapped[at], swapped[other] = (rows[at][0], rows[other][1]), (rows[other][0], rows[at][1])
    inserted = [*rows[:at], rows[at], *rows[at:]]
    shifted = [(number, encoded) for number, (_, encoded) in enumerate(inserted, 1)]
    for attacked in (without, renumbered, swapped, inserted, shifted):
        assert check(attacked, signed=signed).findings


@given(logs, st.data())
def test_a_rewritten_log_is_found_by_the_head_that_another_end_holds(found: list[AuditEvent], data: st.DataObject) -> None:
    """Who holds the audit key can rewrite the log and sign it again. Only the other end knows better."""
    rows = make_rows(found)
    held = {"hub hub-1": sign_head(KEY, SITE, end_of(rows))}
    kept = data.draw(st.integers(0, len(rows) - 1))
    cut_tail = rows[:kept]
    after = end_of(cut_tail) if cut_tail else log_start(SITE)
    rewritten = [*cut_tail, *make_rows([event(n) for n in range(len(found))], at_us=AT_US + 1, after=after)]
    for attacked in (cut_tail, rewritten):
        signed = sign_head(KEY, SITE, end_of(attacked)) if attacked else None
        assert check(attacked, signed=signed).findings == ()
        report = check(attacked, signed=signed, held=held)
        assert report.findings
        assert "hub hub-1 holds" in report.findings[0].text
        assert report.anchored == 0


@given(logs)
def test_an_older_copy_is_found_until_it_has_the_rows_again(found: list[AuditEvent]) -> None:
    rows = make_rows(found)
    held = {"hub hub-1": sign_head(KEY, SITE, end_of(rows))}
    older = rows[:-1]
    report = check(older, signed=sign_head(KEY, SITE, end_of(older)), held=held)
    assert [finding.row for finding in report.findings] == [len(rows)]
    assert check(rows, held=held).findings == ()


def test_a_report_says_since_when_rows_are_not_anchored() -> None:
    first = make_rows([event(n) for n in range(3)])
    rows = [*first, *make_rows([event(n) for n in range(2)], at_us=AT_US + 60_000_000, after=end_of(first))]
    held = {"hub hub-1": sign_head(KEY, SITE, end_of(first)), "hub hub-2": sign_head(KEY, SITE, end_of(first[:1]))}
    report = check(rows, held=held)
    assert (report.anchored, report.anchored_by, report.unanchored_since_us) == (3, "hub hub-1", AT_US + 60_000_000)
    assert describe_report(report) == [
        "rows 1 to 5 follow each other",
        "hub hub-1 holds a signed head of row 3",
        "rows 4 to 5 are not anchored at another end, since 2026-09-21T14:14:20Z",
    ]
    assert check(rows, held={"hub hub-1": sign_head(KEY, SITE, end_of(rows))}).unanchored_since_us is None
    assert check(rows).unanchored_since_us == AT_US
    assert describe_report(check([])) == ["the log has no rows"]


def test_a_head_by_another_key_or_of_another_log_is_found() -> None:
    rows = make_rows([event(n) for n in range(3)])
    hub = Origin(End.HUB, "main")
    for head in (sign_head(OTHER_KEY, SITE, end_of(rows)), sign_head(KEY, hub, end_of(rows))):
        assert [finding.row for finding in check(rows, signed=head).findings] == [3]
    report = check_log(StoredLog(SITE, rows, None, sign_head(KEY, SITE, end_of(rows))), None)
    assert [finding.row for finding in report.findings] == [0]


def test_a_row_of_another_log_is_found() -> None:
    others = make_rows([event()], Origin(End.SITE, "other"))
    assert [finding.row for finding in check(others).findings] == [1]


def test_a_cut_log_is_checked_from_the_cut_on() -> None:
    rows = make_rows([event(n) for n in range(4)])
    noted = AuditEvent(CLINIC, Action.CUT_LOG, Category.LOG, None, (object_id(ROWS, 2),))
    rows += make_rows([noted], after=end_of(rows))
    cut = sign_cut(KEY, SITE, end_of(rows[:2]), AT_US)
    held = {"hub hub-1": sign_head(KEY, SITE, end_of(rows[:1])), "hub hub-2": sign_head(KEY, SITE, end_of(rows[:4]))}
    signed = sign_head(KEY, SITE, end_of(rows))
    report = check(rows[2:], cut=cut, signed=signed, held=held)
    assert (report.findings, report.first, report.last, report.anchored) == ((), 3, 5, 4)

    forged = sign_cut(OTHER_KEY, SITE, end_of(rows[:2]), AT_US)
    assert "is not signed" in check(rows[2:], cut=forged).findings[0].text
    without_row = check(rows[2:4], cut=cut)
    assert "no row of the log says so" in without_row.findings[0].text
    assert check(rows[3:], cut=cut).findings
    assert check(rows[2:]).findings[0].row == 1
    assert cut_from_bytes(cut_to_bytes(cut)) == cut
    assert cut_from_bytes(None) is None


@pytest.mark.parametrize(
    "changes",
    [
        {"action": "free text"},
        {"category": ""},
        {"subject": "Jane Doe"},
        {"objects": ("x" * 81,)},
        {"objects": ("x",) * 17},
        {"session": "ä"},
        {"count": 0},
        {"actor": Actor("", "service", "main")},
    ],
)
def test_an_event_holds_no_free_text(changes: dict[str, Any]) -> None:
    arguments = {"actor": CLINIC, "action": "start", "category": "service"} | changes
    with pytest.raises(ValueError, match="ids and tokens"):
        AuditEvent(**arguments)


def test_an_id_that_is_no_token_is_hashed() -> None:
    assert object_id("alert", "af-1") == "alert:af-1"
    assert object_id("alert", "Jane Doe") == "alert:sha256-01332c876518a793"  # echo -n 'Jane Doe' | sha256sum
    assert len(object_id("alert", "x" * 100)) < 80


@given(st.binary(max_size=300))
def test_only_rows_are_read_as_rows(data: bytes) -> None:
    with pytest.raises(ValueError, match="row"):
        AuditRow.from_bytes(data)
    with pytest.raises(ChainError) as caught:
        list(follow_rows(SITE, log_start(SITE), [(1, data)]))
    assert caught.value.row == 1


@pytest.mark.parametrize("index", range(15))
@pytest.mark.parametrize("value", [None, -1, 2**53, 1.5, True, "", "x y", b"", [], [1], ["hub"], {}])
def test_a_row_with_a_field_of_another_form_is_refused(index: int, value: Any) -> None:
    items = cbor2.loads(make_rows([event()])[0][1])
    items[index] = value
    encoded = cbor2.dumps(items, canonical=True)
    if (index in {6, 9} and value is None) or (index == 10 and value in ([], ["hub"])):  # session, subject, objects
        assert AuditRow.from_bytes(encoded).to_bytes() == encoded
        return
    with pytest.raises(ValueError, match=r"row|event"):
        AuditRow.from_bytes(encoded)


def test_the_frozen_rows_and_heads() -> None:
    """`tests/second_reader` computes the hashes and checks the signatures without our code."""
    rows = [(number, bytes.fromhex(row["row"])) for number, row in enumerate(VECTOR["site_rows"], 1)]
    followed = list(follow_rows(SITE, log_start(SITE), rows))
    assert [place.head.hex() for _, place in followed] == [row["hash"] for row in VECTOR["site_rows"]]
    head = head_from_bytes(bytes.fromhex(VECTOR["site_head"]))
    assert head is not None
    assert (head.position, head_to_bytes(head).hex()) == (followed[-1][1], VECTOR["site_head"])
    assert describe_row(followed[2][0]) == (
        "3 2026-09-21T14:13:20Z viewer:loopback@main read waveforms subject=subject-1 hub:hub-1 for=care done session=ws-7f"
    )
    assert describe_row(followed[3][0]).endswith("for=security refused count=1234")
    assert row_as_json(followed[1][0])["actor"] == {"id": "uid-1000", "role": "operator", "organisation": "main"}


def test_a_hubs_status_certifies_its_audit_key() -> None:
    hub = Origin(End.HUB, "hub-1")
    head = sign_head(KEY, hub, log_start(hub))
    audit = HubAudit(head, KEY.public.to_bytes(), certify_audit_key(DEVICE, "hub-1", KEY.public))
    check_head(read_audit_key(DEVICE.public, "hub-1", audit), hub, head)
    stranger = certify_audit_key(SigningKey.generate(Use.DEVICE), "hub-1", KEY.public)
    cases = [("hub-2", audit), ("hub-1", audit._replace(key_signature=stranger)), ("hub-1", audit._replace(key=bytes(65)))]
    for name, changed in cases:
        with pytest.raises(SignatureError):
            read_audit_key(DEVICE.public, name, changed)
    not_a_point = audit._replace(key=bytes(65), key_signature=DEVICE.sign("pulsegate audit key", "hub-1", bytes(65)))  # type: ignore[arg-type]
    with pytest.raises(SignatureError, match="point"):
        read_audit_key(DEVICE.public, "hub-1", not_a_point)


heads = st.builds(
    SignedHead, st.integers(0, 2**53 - 1), st.binary(min_size=32, max_size=32), st.binary(min_size=64, max_size=64)
)


@given(heads, st.none() | heads, st.binary(min_size=65, max_size=65), st.booleans())
def test_the_fields_of_messages_round_trip(own: SignedHead, seen: SignedHead | None, key: bytes, is_forked: bool) -> None:
    hub, site = HubAudit(own, key, bytes(64), seen, is_forked), SiteAudit(own, seen)
    assert hub_audit_from_bytes(hub_audit_to_bytes(hub)) == hub
    assert parse_site_audit(site_audit_as_list(site)) == site
    assert len(hub_audit_to_bytes(hub)) <= 400
    assert head_from_bytes(head_to_bytes(own)) == own


HEAD: list[Any] = [1, bytes(32), bytes(64)]


@pytest.mark.parametrize(
    "row", [None, 1, [], [HEAD], [HEAD, 0], [[1, bytes(31), bytes(64)], None], [[True, *HEAD[1:]], None], {}]
)
def test_a_malformed_field_of_an_acknowledgement_is_refused(row: Any) -> None:
    with pytest.raises(WireError):
        parse_site_audit(row)


@pytest.mark.parametrize(
    "row",
    [
        None,
        [],
        [HEAD, bytes(64), bytes(64), None, False],
        [HEAD, bytes(65), bytes(64), None, 0],
        [0, bytes(65), bytes(64), None, False],
    ],
)
def test_a_malformed_field_of_a_status_is_refused(row: Any) -> None:
    with pytest.raises(WireError):
        hub_audit_from_bytes(cbor2.dumps(row, canonical=True))


@pytest.mark.parametrize("data", [b"", b"\xff", cbor2.dumps([1]), cbor2.dumps("x")])
def test_a_damaged_head_or_note_in_a_database_is_refused(data: bytes) -> None:
    with pytest.raises(WireError):
        head_from_bytes(data)
    with pytest.raises(WireError):
        cut_from_bytes(data)


@pytest.mark.parametrize(
    ("uid", "caller", "named"),
    [
        (0, "anna.op-1", "anna.op-1"),
        (0, None, "uid-0"),
        (0, "DOMAIN\\anna", "uid-0"),
        (0, "", "uid-0"),
        (1000, "anna", "uid-1000"),
    ],
)
def test_an_operator_is_the_account_and_with_sudo_the_one_that_called_it(
    monkeypatch: pytest.MonkeyPatch, uid: int, caller: str | None, named: str
) -> None:
    """Only root's environment can come from sudo."""
    monkeypatch.setattr("os.getuid", lambda: uid)
    if caller is not None:
        monkeypatch.setenv("SUDO_USER", caller)
    assert account() == named

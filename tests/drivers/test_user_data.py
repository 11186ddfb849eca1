"""The consent to a scale's user, against a scripted scale that behaves as Beurer's do in captures."""

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivers import user_data
from drivers.conversation import Consent, Context, Conversation, Moment, NoAnswerError, RefusedError, Request, Value
from drivers.readings import DecodeError, Reading, Status

NOW = Moment(1_750_000_000_000_000)
CONSENT = Consent(user=1, code=3752)
"""User and code of a capture of a BF720: 02 01 A8 0E (ble-scale-sync issues/168)."""


@dataclass
class Scale:
    """Its users and their codes. It has weights to send as soon as the user is known; without one it sends none."""

    users: Mapping[int, int] = field(default_factory=lambda: {1: 3752, 2: 9999})
    weights: tuple[bytes, ...] = (bytes.fromhex("0E783EEA07050C12353601EE002607"),)
    requests: list[bytes] = field(default_factory=list)
    sent: list[bytes] = field(default_factory=list)

    def answer(self, payload: bytes) -> bytes:
        self.requests.append(payload)
        if payload[0] != 0x02:
            return bytes((0x20, payload[0], 0x02))
        if len(payload) != 4:
            return bytes((0x20, 0x02, 0x03))
        if self.users.get(payload[1]) != int.from_bytes(payload[2:], "little"):
            return bytes((0x20, 0x02, 0x05))
        self.sent.extend(self.weights)
        return bytes((0x20, 0x02, 0x01))


def converse(consent: Consent | None = CONSENT) -> Conversation:
    assert user_data.DRIVER.converse
    return user_data.DRIVER.converse(Context(consent=consent))


def set_up(conversation: Conversation, answer: Callable[[bytes], bytes]) -> list[Reading]:
    """Run the set-up as a session does: each value goes to `receive` first, then answers the request."""
    readings: list[Reading] = []
    procedure = conversation.start(NOW)
    result: bytes | None = None
    while True:
        try:
            step = procedure.send(result)
        except StopIteration:
            return readings
        result = None
        if isinstance(step, Status):
            readings.append(step)
            continue
        assert isinstance(step, Request)
        assert step.characteristic == user_data.CONTROL_POINT
        value = answer(step.payload)
        with contextlib.suppress(DecodeError):  # the session keeps such a value raw
            readings += [r for r in conversation.receive(Value(step.characteristic, value, NOW)) if isinstance(r, Status)]
        if not step.is_answer(value):
            procedure.throw(NoAnswerError("no answer"))
        result = value


def test_consent_makes_the_scale_send_the_weights_of_the_user() -> None:
    scale = Scale()
    assert set_up(converse(), scale.answer) == [Status("user_control", "op=response request=consent result=success")]
    assert scale.requests == [bytes.fromhex("0201A80E")]
    assert scale.sent == list(scale.weights)


def test_nothing_is_written_without_a_user_and_a_code() -> None:
    scale = Scale()
    (status,) = set_up(converse(None), scale.answer)
    assert status == Status("user_control", "no consent: the hub knows no user and code of this scale")
    assert scale.requests == []


@pytest.mark.parametrize("users", [{}, {1: 1111}], ids=["forgot its users after a change of batteries", "another code"])
def test_a_user_that_is_not_authorized_is_explained_without_the_code(users: dict[int, int]) -> None:
    scale = Scale(users)
    with pytest.raises(RefusedError, match="register the patient at the scale, then enter the user and the code") as refusal:
        set_up(converse(), scale.answer)
    assert "user 1" in str(refusal.value)
    assert "3752" not in str(refusal.value)
    assert scale.sent == []


@pytest.mark.parametrize(
    ("result", "name"),
    [(2, "op_code_not_supported"), (3, "invalid_parameter"), (4, "operation_failed"), (9, "reserved value 9")],
)
def test_another_refusal_is_named(result: int, name: str) -> None:
    with pytest.raises(RefusedError, match=name):
        set_up(converse(), lambda payload: bytes((0x20, payload[0], result)))


def test_a_refused_consent_is_asked_once_in_a_connection() -> None:
    scale, conversation = Scale({}), converse()
    for _ in range(3):
        with pytest.raises(RefusedError, match="user_not_authorized"):
            set_up(conversation, scale.answer)
    assert scale.requests == [bytes.fromhex("0201A80E")]


@pytest.mark.parametrize("other", ["20010103", "2002", "0201A80E"], ids=["of another request", "truncated", "an echo"])
def test_a_scale_that_does_not_answer_is_asked_again(other: str) -> None:
    scale, conversation = Scale(), converse()
    with pytest.raises(NoAnswerError):
        set_up(conversation, lambda _payload: bytes.fromhex(other))
    assert set_up(conversation, scale.answer) == [Status("user_control", "op=response request=consent result=success")]


def test_nothing_is_written_at_the_end_of_a_connection() -> None:
    assert list(converse().stop()) == []


@given(user=st.integers(0, 254), code=st.integers(0, 9999))
def test_no_text_has_the_code(user: int, code: int) -> None:
    payload = bytes((0x02, user)) + code.to_bytes(2, "little")
    assert user_data.decode_user_control(payload) == (Status("user_control", f"op=consent user={user} code=given"),)
    assert user_data.decode_user_control(b"\x01" + payload[2:]) == (Status("user_control", "op=register code=given"),)


@given(payload=st.binary(max_size=8))
def test_errors_repeat_no_personal_data(payload: bytes) -> None:
    for decode in (user_data.decode_date_of_birth, user_data.decode_gender, user_data.decode_height):
        try:
            decode(payload)
        except DecodeError as error:
            texts = (str(error), str(error.__cause__ or ""))
            year = str(int.from_bytes(payload[:2], "little"))
            assert "does not exist" in texts[0] or "reserved" in texts[0] or " at byte " in texts[0]
            assert len(year) < 3 or not any(year in text for text in texts)


def test_a_session_does_not_read_personal_data() -> None:
    assert user_data.DRIVER.reads == ()

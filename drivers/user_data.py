"""User Data Service 1.1 (Bluetooth SIG): consent to a scale's user, without which many scales send no weight.

The service also has personal data of that user. No text of an error repeats a value.
"""

from collections.abc import Mapping
from datetime import date
from typing import Final

from drivers.codec import Reader
from drivers.conversation import Consent, Context, Effect, Moment, Procedure, RefusedError, Request, Value, do_nothing
from drivers.readings import DecodeError, Reading, Status
from drivers.spec import Characteristic, DriverSpec, uuid16

CONTROL_POINT: Final = uuid16(0x2A9F)

_REGISTER: Final = 1
_CONSENT: Final = 2
_LIST_ALL_USERS: Final = 4
_DELETE_USERS: Final = 5
_RESPONSE: Final = 0x20
_OPERATIONS: Final[Mapping[int, str]] = {
    _REGISTER: "register",
    _CONSENT: "consent",
    3: "delete_user_data",
    _LIST_ALL_USERS: "list_all_users",
    _DELETE_USERS: "delete_users",
}
"""Procedures of the User Control Point (section 3.4). This driver writes the consent only."""

_SUCCESS: Final = 1
_USER_NOT_AUTHORIZED: Final = 5
_RESULTS: Final[Mapping[int, str]] = {
    _SUCCESS: "success",
    2: "op_code_not_supported",
    3: "invalid_parameter",
    4: "operation_failed",
    _USER_NOT_AUTHORIZED: "user_not_authorized",
}
"""Response values of the User Control Point (section 3.4)."""

_GENDERS: Final = ("male", "female", "unspecified")
_UNKNOWN_USER: Final = 255
_CM_PER_M: Final = 100


def decode_user_control(payload: bytes) -> tuple[Reading, ...]:
    """User Control Point, 0x2A9F (section 3.4): an answer, or what a client writes, as text.

    It is a list of names and values, as `op=response request=register result=success user=3`. A consent code is a secret: of
    one, the text says only that it was given.
    """
    reader = Reader(payload)
    operation = reader.u8("op code")
    parts = _describe_response(reader) if operation == _RESPONSE else _describe_request(operation, reader)
    reader.expect_end()
    return (Status("user_control", " ".join(parts)),)


def _describe_response(reader: Reader) -> list[str]:
    request = reader.u8("request op code")
    result = reader.u8("response value")
    name = _OPERATIONS.get(request, f"unknown_{request}")
    parts = ["op=response", f"request={name}", f"result={_RESULTS.get(result, f'unknown_{result}')}"]
    if result == _SUCCESS and request in (_REGISTER, _DELETE_USERS):
        parts.append(f"user={reader.u8('user index')}")
    if result == _SUCCESS and request == _LIST_ALL_USERS:
        parts.append(f"users={reader.u8('number of users')}")
    return parts


def _describe_request(operation: int, reader: Reader) -> list[str]:
    name = _OPERATIONS.get(operation)
    if name is None:
        raise DecodeError(f"op code: {operation} is reserved; the service defines 1 to 5 and 32")
    parts = [f"op={name}"]
    if operation in (_CONSENT, _DELETE_USERS):
        parts.append(f"user={reader.u8('user index')}")
    if operation in (_REGISTER, _CONSENT):
        reader.u16("consent code")
        parts.append("code=given")
    return parts


def decode_user_index(payload: bytes) -> tuple[Reading, ...]:
    """User Index, 0x2A9A (section 3.3): the user that this connection has consent for; no reading if there is none."""
    reader = Reader(payload)
    user = reader.u8("user index")
    reader.expect_end()
    return () if user == _UNKNOWN_USER else (Status("user_index", user),)


def decode_change_increment(payload: bytes) -> tuple[Reading, ...]:
    """Database Change Increment, 0x2A99 (section 3.2): a counter of the changes to the user's data."""
    reader = Reader(payload)
    count = reader.u32("database change increment")
    reader.expect_end()
    return (Status("change_increment", count),)


def decode_date_of_birth(payload: bytes) -> tuple[Reading, ...]:
    """Date of Birth, 0x2A85: an ISO 8601 date; no reading if a part is unknown (0)."""
    reader = Reader(payload)
    parts = reader.u16("year"), reader.u8("month"), reader.u8("day")
    reader.expect_end()
    if 0 in parts:
        return ()
    try:
        return (Status("date_of_birth", date(*parts).isoformat()),)
    except ValueError:
        # The message and its cause must not repeat the date: it is personal data, and the reason is logged.
        raise DecodeError("date of birth: the date does not exist") from None


def decode_gender(payload: bytes) -> tuple[Reading, ...]:
    """Gender, 0x2A8C."""
    reader = Reader(payload)
    number = reader.u8("gender")
    reader.expect_end()
    if number >= len(_GENDERS):
        raise DecodeError(f"gender: the value is reserved; the service defines 0 to {len(_GENDERS) - 1}")
    return (Status("gender", _GENDERS[number]),)


def decode_height(payload: bytes) -> tuple[Reading, ...]:
    """Height, 0x2A8E: the height in the user's profile, sent in cm, in m."""
    reader = Reader(payload)
    height_cm = reader.u16("height")
    reader.expect_end()
    return (Status("height", height_cm / _CM_PER_M),)


class _UserDataConversation:
    """Gives the consent of the patient's user of the scale.

    A refused consent is not repeated during the connection: the same code stays wrong.
    """

    def __init__(self, consent: Consent | None) -> None:
        self._consent = consent
        self._refusal = ""

    def start(self, now: Moment) -> Procedure:
        del now
        if self._consent is None:
            yield Status("user_control", "no consent: the hub knows no user and code of this scale")
            return
        if not self._refusal:
            user, code = self._consent.user, self._consent.code
            answer = yield Request(CONTROL_POINT, bytes((_CONSENT, user)) + code.to_bytes(2, "little"), _is_consent_answer)
            self._refusal = _describe_refusal(user, answer[2])
        if self._refusal:
            raise RefusedError(self._refusal)

    def stop(self) -> Procedure:
        return do_nothing()

    def receive(self, value: Value) -> tuple[Effect, ...]:
        return decode_user_control(value.payload)


def _is_consent_answer(payload: bytes) -> bool:
    return len(payload) >= 3 and payload[:2] == bytes((_RESPONSE, _CONSENT))


def _describe_refusal(user: int, result: int) -> str:
    """Why the scale refuses the consent, and what to do; "" if it does not."""
    if result == _SUCCESS:
        return ""
    refusal = f"the scale refuses the consent for its user {user}: {_RESULTS.get(result, f'reserved value {result}')}"
    if result == _USER_NOT_AUTHORIZED:
        return (
            f"{refusal}; the code is wrong or the scale has forgotten its users, as after a change of batteries: register the"
            " patient at the scale, then enter the user and the code again"
        )
    return f"{refusal}; check the user and the code at the scale, then enter them again"


def _converse(context: Context) -> _UserDataConversation:
    return _UserDataConversation(context.consent)


DRIVER: Final = DriverSpec(
    name="user_data",
    service=uuid16(0x181C),
    streams=(
        Characteristic(CONTROL_POINT, "indicate"),
        Characteristic(uuid16(0x2A99), "notify", decode_change_increment, is_optional=True),
    ),
    # Personal data is not needed here, and a scale refuses to show it before the consent.
    others=(
        Characteristic(uuid16(0x2A9A), "read", decode_user_index),
        Characteristic(uuid16(0x2A85), "read", decode_date_of_birth),
        Characteristic(uuid16(0x2A8C), "read", decode_gender),
        Characteristic(uuid16(0x2A8E), "read", decode_height),
    ),
    bonding=True,
    converse=_converse,
    # After the clock, before records are asked for.
    setup_rank=1,
)

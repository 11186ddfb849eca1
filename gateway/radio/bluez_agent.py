"""An `org.bluez.Agent1` of our own: bleak registers none, and without one a sensor with a passkey cannot be paired.

BlueZ asks it only for pairings that this hub starts (`doc/org.bluez.Agent.rst`). It refuses every other pairing, so nobody can
pair with the hub by himself. Just Works needs no answer.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

from dbus_fast import Message, MessageType
from dbus_fast.aio import MessageBus

from gateway.radio.pairing import PairingAnswers

AGENT_PATH: Final = "/eu/pulsegate/agent"
CAPABILITY: Final = "KeyboardDisplay"
"""The hub can show a number and take one, so that the sensor decides between passkey, comparison and Just Works."""
_AGENT: Final = "org.bluez.Agent1"
_REJECTED: Final = "org.bluez.Error.Rejected"
_CANCELED: Final = "org.bluez.Error.Canceled"

Reply = tuple[str, list[Any]]
"""Signature and body of a method's return message."""
_EMPTY: Final[Reply] = ("", [])


class _RefusedError(Exception):
    """The person said no, or nobody is pairing this device."""


class BlueZAgent:
    """Answers the questions of the one pairing that runs, and refuses all others."""

    def __init__(self, bus: MessageBus) -> None:
        self._bus = bus
        self._device_path = ""
        self._answers: PairingAnswers | None = None
        self._questions: set[asyncio.Task[None]] = set()
        self.is_cancelled = False
        """Whether the person refused a question of the last pairing."""
        self._methods: Mapping[str, Callable[[PairingAnswers, list[Any]], Awaitable[Reply]]] = {
            "RequestPasskey": self._request_passkey,
            "DisplayPasskey": self._display_passkey,
            "RequestConfirmation": self._request_confirmation,
            "RequestAuthorization": self._request_authorization,
        }
        bus.add_message_handler(self._on_message)

    @contextmanager
    def answering(self, device_path: str, answers: PairingAnswers) -> Iterator[None]:
        """Pass the questions about this device on to `answers`. A question that is open at the end is cancelled."""
        self._device_path, self._answers, self.is_cancelled = device_path, answers, False
        try:
            yield
        finally:
            self._device_path, self._answers = "", None
            self._cancel_questions()

    async def close(self) -> None:
        """Cancel the open questions. The bus must be closed afterwards: BlueZ then forgets the agent."""
        self._bus.remove_message_handler(self._on_message)
        questions = set(self._questions)
        self._cancel_questions()
        if questions:
            await asyncio.wait(questions)

    def _cancel_questions(self) -> None:
        for question in self._questions:
            question.cancel()

    def _on_message(self, message: Message) -> bool:
        is_ours = message.message_type is MessageType.METHOD_CALL and message.interface == _AGENT
        if not is_ours or message.path != AGENT_PATH:
            return False
        if message.member in ("Cancel", "Release"):
            self._cancel_questions()
            self._send(Message.new_method_return(message))
            return True
        question = asyncio.ensure_future(self._answer(message))
        self._questions.add(question)
        question.add_done_callback(self._questions.discard)
        return True

    async def _answer(self, message: Message) -> None:
        try:
            reply = Message.new_method_return(message, *await self._ask(message))
        except _RefusedError:
            reply = Message.new_error(message, _REJECTED, "refused")
        except asyncio.CancelledError:
            self._send(Message.new_error(message, _CANCELED, "cancelled"))
            raise
        self._send(reply)

    async def _ask(self, message: Message) -> Reply:
        method = self._methods.get(message.member or "")
        if method is None or self._answers is None or message.body[:1] != [self._device_path]:
            raise _RefusedError
        try:
            return await method(self._answers, message.body)
        except _RefusedError:
            self.is_cancelled = True
            raise

    def _send(self, message: Message) -> None:
        if self._bus.connected:
            self._bus.send(message)

    @staticmethod
    async def _request_passkey(answers: PairingAnswers, _body: list[Any]) -> Reply:
        passkey = await answers.enter_passkey()
        if passkey is None:
            raise _RefusedError
        return "u", [passkey]

    @staticmethod
    async def _display_passkey(answers: PairingAnswers, body: list[Any]) -> Reply:
        """BlueZ calls this again for every digit that the person enters at the sensor; `entered` counts them."""
        _device, passkey, entered = body
        if entered == 0:
            await answers.show_passkey(passkey)
        return _EMPTY

    @staticmethod
    async def _request_confirmation(answers: PairingAnswers, body: list[Any]) -> Reply:
        if not await answers.confirm_number(body[1]):
            raise _RefusedError
        return _EMPTY

    @staticmethod
    async def _request_authorization(_answers: PairingAnswers, _body: list[Any]) -> Reply:
        """Just Works that the sensor began while the hub pairs with it."""
        return _EMPTY

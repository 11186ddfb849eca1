"""`org.bluez.AgentManager1`: the agents that programs register, and Bumble's questions passed on to them."""

from typing import Any, Final

from bumble.pairing import PairingConfig, PairingDelegate
from dbus_fast import Message, MessageType
from dbus_fast.aio import MessageBus

from tests.bluez.dbus_objects import BlueZError

AGENT: Final = "org.bluez.Agent1"
_CAPABILITIES: Final = {
    "": PairingDelegate.DISPLAY_OUTPUT_AND_KEYBOARD_INPUT,
    "KeyboardDisplay": PairingDelegate.DISPLAY_OUTPUT_AND_KEYBOARD_INPUT,
    "DisplayYesNo": PairingDelegate.DISPLAY_OUTPUT_AND_YES_NO_INPUT,
    "DisplayOnly": PairingDelegate.DISPLAY_OUTPUT_ONLY,
    "KeyboardOnly": PairingDelegate.KEYBOARD_INPUT_ONLY,
    "NoInputNoOutput": PairingDelegate.NO_OUTPUT_NO_INPUT,
}
_ENCRYPTION_KEY: Final = PairingDelegate.KeyDistribution.DISTRIBUTE_ENCRYPTION_KEY


class FakeAgents:
    """The registered agents. A program that pairs is asked by its own agent, otherwise by the default one, as in BlueZ."""

    def __init__(self, bus: MessageBus) -> None:
        self._bus = bus
        self._agents: dict[str, tuple[str, str]] = {}
        """Path and capability of each agent, by the bus name of its program."""
        self._default = ""

    def register(self, sender: str, path: str, capability: str) -> None:
        if sender in self._agents:
            raise BlueZError("org.bluez.Error.AlreadyExists", "Already Exists")
        if capability not in _CAPABILITIES:
            raise BlueZError("org.bluez.Error.InvalidArguments", "Invalid arguments in method call")
        self._agents[sender] = (path, capability)

    def make_default(self, sender: str, path: str) -> None:
        if self._agents.get(sender, ("", ""))[0] != path:
            raise BlueZError("org.bluez.Error.DoesNotExist", "Does Not Exist")
        self._default = sender

    def pairing_config(self, sender: str, device_path: str) -> PairingConfig:
        """How the kernel pairs: with protection against a stranger between the two wherever the agent can answer."""
        owner = sender if sender in self._agents else self._default
        path, capability = self._agents.get(owner, ("", "NoInputNoOutput"))
        delegate = _AgentDelegate(self._bus, owner, path, device_path, capability)
        return PairingConfig(sc=True, mitm=capability != "NoInputNoOutput", bonding=True, delegate=delegate)


class _AgentDelegate(PairingDelegate):  # type: ignore[misc]  # mypy does not follow Bumble's imports
    def __init__(self, bus: MessageBus, owner: str, path: str, device_path: str, capability: str) -> None:
        super().__init__(_CAPABILITIES[capability], _ENCRYPTION_KEY, _ENCRYPTION_KEY)
        self._bus, self._owner, self._path, self._device_path = bus, owner, path, device_path

    async def get_number(self) -> int | None:
        answer = await self._ask("RequestPasskey", "o", self._device_path)
        return None if answer is None else answer[0]

    async def display_number(self, number: int, digits: int) -> None:
        await self._ask("DisplayPasskey", "ouq", self._device_path, number, 0)

    async def compare_numbers(self, number: int, digits: int) -> bool:
        return await self._ask("RequestConfirmation", "ou", self._device_path, number) is not None

    async def _ask(self, member: str, signature: str, *body: Any) -> list[Any] | None:
        """Ask the agent, and return the body of its answer; None if it refuses. A pairing that ended cancels the question."""
        try:
            reply = await self._bus.call(self._message(member, signature, *body))
        except BaseException:
            if self._bus.connected:
                self._bus.send(self._message("Cancel", ""))
            raise
        return None if reply.message_type is MessageType.ERROR else reply.body

    def _message(self, member: str, signature: str, *body: Any) -> Message:
        return Message(self._owner, self._path, AGENT, member, signature=signature, body=list(body))

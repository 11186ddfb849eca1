"""Values that a peer sends before the hub has asked for them in this connection.

A bonded sensor keeps the hub's subscriptions and may indicate as soon as the link is encrypted, while the hub still discovers
its services. Bumble confirms such an indication and drops its value, and the sensor may then delete it.
"""

from collections.abc import Callable
from typing import Any, Final

from bumble.gatt_client import Client

MAX_EARLY_VALUES: Final = 256
"""More than a cuff stores, and at most 128 KiB. What comes beyond is dropped, so that a flood costs no more memory."""


class EarlyValues:
    """Collects the values of a connection that nobody has subscribed to yet. Make it before the link is encrypted."""

    def __init__(self, client: Client) -> None:
        self._by_handle: dict[int, list[bytes]] = {}
        self._kept = 0
        for name in ("notification", "indication"):
            self._watch(client, f"on_att_handle_value_{name}", getattr(client, f"{name}_subscribers"))

    def take(self, handle: int) -> list[bytes]:
        """Return the values of a characteristic that came so far, oldest first, and forget them."""
        return self._by_handle.pop(handle, [])

    def _watch(self, client: Client, method: str, subscribers: dict[int, Any]) -> None:
        handle_value: Callable[[Any], None] = getattr(client, method)

        def keep_and_handle(value: Any) -> None:
            if not subscribers.get(value.attribute_handle) and self._kept < MAX_EARLY_VALUES:
                self._kept += 1
                self._by_handle.setdefault(value.attribute_handle, []).append(bytes(value.attribute_value))
            handle_value(value)

        setattr(client, method, keep_and_handle)

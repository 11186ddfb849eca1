"""paho's MQTT client without the HTTP client that it imports. Import paho from here only: what counts is the first import.

paho imports `urllib.request` for a proxy that it looks for only where PySocks is installed. With it come `http` and `email`:
1.3 MB of the agent's memory. Here the module is loaded when it is first used, which is never on a hub.
"""

import importlib
import sys
import urllib
from types import ModuleType
from typing import Any, Final

_NAME: Final = "urllib.request"


def _load_attribute(attribute: str) -> Any:
    """Load the real module, and return an attribute of it. `importlib.util.LazyLoader` would load it at paho's import."""
    if attribute.startswith("__"):
        raise AttributeError(attribute)
    if sys.modules[_NAME] is _module:
        del sys.modules[_NAME]
    return getattr(importlib.import_module(_NAME), attribute)


_module = ModuleType(_NAME)
_module.__getattr__ = _load_attribute  # type: ignore[method-assign]
if sys.modules.setdefault(_NAME, _module) is _module:
    setattr(urllib, "request", _module)  # noqa: B010  typeshed declares it a module already

from paho.mqtt.client import Client, ConnectFlags, DisconnectFlags, MQTTMessage  # noqa: E402, TID251  the one place
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion  # noqa: E402, TID251
from paho.mqtt.properties import Properties  # noqa: E402, TID251
from paho.mqtt.reasoncodes import ReasonCode  # noqa: E402, TID251

__all__ = [
    "CallbackAPIVersion",
    "Client",
    "ConnectFlags",
    "DisconnectFlags",
    "MQTTErrorCode",
    "MQTTMessage",
    "MQTTProtocolVersion",
    "Properties",
    "ReasonCode",
]

"""The CPU time of a Theengs gateway for each advertisement that it decodes and publishes with QoS 0. For `notification_cost`.

    build/theengs/bin/python benchmarks/theengs_gateway.py HOST PORT SECONDS

Theengs is under the GPL: it is installed into an environment of its own, never into ours. The advertisements are those of 20
sensors, given to the gateway's own callback, as its scanner would. Its decoder compares each with its list of devices, so
that it takes longest for those at the end: a heart rate sensor (XOSS X2) takes several times as long as a scale (Xiaomi).

Prints µs for each advertisement of both as JSON: at one a second and sensor, as they come in use, and one after the other.
"""

import json
import logging
import sys
import time
from collections.abc import Callable
from types import SimpleNamespace

from TheengsGateway.ble_gateway import Gateway
from TheengsGateway.config import DEFAULT_CONFIG

SENSORS = 20
TICK_S = 0.02
"""As `made_sensors` wakes."""
AT_ONCE, ROUNDS = 500, 10
"""Advertisements one after the other, and how often; the broker reads them between the rounds."""
FOUND = {
    "scale": SimpleNamespace(
        manufacturer_data={},
        service_data={"0000181d-0000-1000-8000-00805f9b34fb": bytes.fromhex("223e3fe207020f0c2a1f")},
        local_name="MI SCALE2",
        rssi=-50,
    ),
    "heart_rate": SimpleNamespace(
        manufacturer_data={0xFF04: bytes((0, 90, 0, 60))}, service_data={}, local_name="XOSS X2", rssi=-50
    ),
}


def main() -> None:
    host, port, seconds = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
    logging.disable(logging.CRITICAL)
    gateway = Gateway(DEFAULT_CONFIG | {"host": host, "port": port, "discovery": 0, "publish_all": 0})
    gateway.connect_mqtt()
    gateway.client.loop_start()
    wait_until(gateway.client.is_connected)
    print(json.dumps({kind: measure(gateway, found, seconds) for kind, found in FOUND.items()}))


def measure(gateway: Gateway, found: SimpleNamespace, seconds: float) -> dict[str, float]:
    published = gateway.published_messages
    pace(gateway, found, seconds=2, each_s=1.0)
    _, idle_s = pace(gateway, found, seconds=seconds, each_s=None)
    sent, busy_s = pace(gateway, found, seconds=seconds, each_s=1.0)
    taken_s = 0.0
    for _ in range(ROUNDS):
        before_s = time.process_time()
        send(gateway, found, 0, AT_ONCE)
        wait_until(lambda: not gateway.client.want_write())
        taken_s += time.process_time() - before_s
        time.sleep(1)
    if gateway.published_messages - published < sent + ROUNDS * AT_ONCE:
        raise RuntimeError("Theengs did not publish every advertisement")
    return {
        "cpu_us_at_20_a_second": round((busy_s - idle_s) / sent * 1e6, 1),
        "cpu_us_at_once": round(taken_s / (ROUNDS * AT_ONCE) * 1e6, 1),
    }


def pace(gateway: Gateway, found: SimpleNamespace, seconds: float, each_s: float | None) -> tuple[int, float]:
    """Wake at every tick and send what is due; return how many advertisements, and the CPU time."""
    before_s, start_s, sent = time.process_time(), time.monotonic(), 0
    for tick in range(round(seconds / TICK_S)):
        time.sleep(max(0.0, start_s + tick * TICK_S - time.monotonic()))
        due = 0 if each_s is None else int(tick * TICK_S / each_s * SENSORS)
        send(gateway, found, sent, due - sent)
        sent = max(sent, due)
    return sent, time.process_time() - before_s


def send(gateway: Gateway, found: SimpleNamespace, first: int, number: int) -> None:
    for index in range(first, first + number):
        gateway.detection_callback(SimpleNamespace(address=f"C0:DE:00:00:00:{index % SENSORS:02X}", name=""), found)


def wait_until(is_true: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + 10
    while not is_true():
        if time.monotonic() > deadline_s:
            raise TimeoutError
        time.sleep(0.01)


if __name__ == "__main__":
    main()

"""Reads Bluetooth captures: btsnoop, pcap and pcapng files with the traffic of a sensor."""

from captures.bluetooth.capture import is_bluetooth_capture, read_bluetooth_capture

__all__ = ["is_bluetooth_capture", "read_bluetooth_capture"]

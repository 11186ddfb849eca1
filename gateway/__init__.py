"""The agent on the hub."""

"""Sealing of blocks, the durable outbox, and the uplink to the clinic."""

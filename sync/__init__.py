"""Sealing, the durable outbox and its way to the clinic."""

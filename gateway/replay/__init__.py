"""Replay of recordings through the agent's own pipeline."""

"""Reads what an earlier version stored in format 1: decoding only, for migrations."""

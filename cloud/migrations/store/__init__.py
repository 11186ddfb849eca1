"""The revisions of the store."""

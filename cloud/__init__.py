"""The clinic: ingest, store, opener and page."""

"""The clinic: ingest, store of sealed blocks, opener, API and page."""

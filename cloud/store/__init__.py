"""The clinic's store of sealed blocks: `store` has its interface; the other modules each do a part of it."""

from cloud.store.store import Store

__all__ = ["Store"]

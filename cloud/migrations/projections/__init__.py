"""The revisions of the projections."""

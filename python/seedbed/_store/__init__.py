"""Ensembles on disk: what a store looks like, how it is written and how it is read.

A store is a checkpoint of Orbax whose leaves are zarr arrays with the members in dimension 0, and
beside them `seedbed.json`, which says of what it was made. Nothing here knows how members are made:
they come as arrays, range by range.
"""

__all__ = ["extra", "format", "progress", "read", "saved", "write"]

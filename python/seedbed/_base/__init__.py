"""What would be of use in any Python program: records, pickling, a log, changes that can be undone.

Nothing here knows jax.
"""

__all__ = ["garbage", "log", "pickling", "record", "undo"]

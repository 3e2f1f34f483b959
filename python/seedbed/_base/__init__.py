"""What would be of use in any Python program: records, pickling, changes that can be undone.

Nothing here knows jax.
"""

__all__ = ["garbage", "pickling", "record", "undo"]

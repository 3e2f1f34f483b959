"""What may run here: which backend, and which kernels agree with the installed XLA.

`backends` answers, `selfcheck` finds out by the fixed `cases`, and `cache` keeps what it found.
Nothing here knows a user's function.
"""

__all__ = ["backends", "cache", "cases", "selfcheck"]

"""Modules of nnx with their streams, made under a trace; where their variables lie.

`adapters.nnx` is what users see of it. Nothing here knows other frameworks.
"""

__all__ = ["making", "streams"]

"""What a call on all nodes of a tree does: which methods, with which keys, and what it publishes.

`collective` and `run` are the public functions. Nothing here knows how a module keeps its states.
"""

__all__ = ["collective", "members", "methods", "run"]

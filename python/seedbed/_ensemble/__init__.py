"""The public object: checks, then a prepared plan, then a program, then the result.

`ensemble` is what users call, `check` everything they pass in. Nothing here knows modules, states
or frameworks.
"""

__all__ = ["check", "donate", "ensemble", "shardings", "single"]

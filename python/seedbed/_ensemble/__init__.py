"""The public object: checks, then a prepared plan, then a program, then the result.

`ensemble` and `single` are what users call, `check` everything they pass in, `shardings` where
results are to lie, `lazy` an ensemble that is not stored (`loops` and `mapped` run over its
members). Nothing here knows modules, states or frameworks.
"""

__all__ = ["check", "donate", "ensemble", "lazy", "shardings", "single"]

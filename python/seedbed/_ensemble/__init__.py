"""The public object: checks, then a prepared plan, then a program, then the result.

`ensemble` and `single` are what users call, `check` everything they pass in, `shardings` where
results are to lie, `lazy` an ensemble that is not stored (`loops` and `mapped` run over its
members), `saving` makes members for a store, `held` has those that are in memory, `within` the
calls that the package itself makes. Nothing here knows modules, states or frameworks.
"""

__all__ = [
    "check",
    "donate",
    "ensemble",
    "held",
    "lazy",
    "renew",
    "saving",
    "shardings",
    "single",
    "within",
]

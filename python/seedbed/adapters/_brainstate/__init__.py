"""One call of brainstate's, with its mapped pass made here.

`adapters.brainstate` is what users see of it. Nothing here knows other frameworks.
"""

__all__ = ["call", "ensemble", "places", "program", "roots", "stored"]

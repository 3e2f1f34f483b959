"""What adapters have in common: a framework's model as arrays and a static rest.

`model` is the ensemble of such models, `variables` and `shapes` serve those frameworks whose models
are made from example inputs. Nothing here knows a framework.
"""

__all__ = ["model", "shapes", "variables"]

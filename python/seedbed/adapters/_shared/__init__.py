"""What adapters have in common: a framework's model as arrays and a static rest.

`parts` is a model taken apart, `model` the ensemble of such models and a single one, `layouts`
where their arrays lie, `checks` what users pass in, `stored` ensembles on disk or made when asked
for. `variables` and `shapes` serve those frameworks whose models are made from example inputs.
Nothing here knows a framework.
"""

__all__ = ["checks", "layouts", "model", "parts", "shapes", "stacking", "stored", "variables"]

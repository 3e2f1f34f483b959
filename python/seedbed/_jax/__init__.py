"""Every touch of jax's and XLA's insides.

What differs between releases of jax (`compat`), what jaxprs hold (`jaxprs`), how primitives are
lowered (`lowering`), which generator a key is of (`generators`), where arrays lie (`places`), what
leaves are called (`paths`), and how XLA rounds: as it is known of a release (`known`) or found out
by asking (`ask_xla`). The rooms above use public jax only. Nothing here knows ensembles, draws or
plans.
"""

__all__ = [
    "ask_xla",
    "compat",
    "generators",
    "jaxprs",
    "known",
    "lowering",
    "paths",
    "places",
    "types",
]

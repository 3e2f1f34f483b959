"""jax.random's side: its functions, keys and primitives with the native cipher behind them.

`cipher` makes words, splits and folds inside of jax's programs. Three ways lead there: keys of
`prng_impl`, jax's own lowering (`accelerate`), and drop-ins (`samplers`). `stream` is the ambient
stream of keys. Nothing here knows ensembles.
"""

__all__ = ["accelerate", "cipher", "prng_impl", "samplers", "stream"]

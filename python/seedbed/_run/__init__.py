"""A plan, or a traced function, as a compiled program.

`native` loads the extension and encodes draws for it, `fill` is the draws as one primitive of jax
(`portable` in exported programs), `reference` is plain `jax.vmap`, and `execute` compiles either
way; `formula` is what the kernels repeat. Nothing here knows why one was chosen.
"""

__all__ = ["execute", "formula", "native"]

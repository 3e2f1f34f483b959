"""A plan, or a traced function, as a compiled program.

`programs` has the two kinds, `execute` compiles either, `sharded` for the devices of a mesh
(`layout` says which part each has), `host` for devices without a kernel. `native` loads the
extension and encodes draws for it, `fill` is the draws as one primitive of jax (`portable` in
exported programs, with the `formula` that the kernels repeat), `reference` is plain `jax.vmap`, and
`members` says which members are wanted. Nothing here knows why one was chosen.
"""

__all__ = ["execute", "formula", "host", "layout", "members", "native", "programs"]

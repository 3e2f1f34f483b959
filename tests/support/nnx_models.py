"""Models of flax nnx that the tests of its adapter share."""

from flax import nnx

WIDTH = 8


class Model(nnx.Module):
    def __init__(self, width, *, rngs):
        self.linear = nnx.Linear(WIDTH, width, rngs=rngs)
        self.norm = nnx.BatchNorm(width, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)

    def __call__(self, x, scale=1.0):
        return self.dropout(self.norm(self.linear(x))) * scale


class Keeper(nnx.Module):
    """A module that keeps the rngs it was given, and one of their streams."""

    def __init__(self, *, rngs):
        self.weight = nnx.Param(rngs.normal((WIDTH,)))
        self.inner = nnx.Dict(rngs=rngs)
        self.stream = rngs.params

    def __call__(self, x):
        return x + self.weight + self.inner.rngs.params.uniform((WIDTH,))


def three_streams():
    rngs = nnx.Rngs(0, params=1, dropout=2)
    rngs.params()
    return rngs

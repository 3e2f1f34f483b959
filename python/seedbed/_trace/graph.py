"""What flattening a traced function leaves: equations, in order, on numbered values."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .fold import Atom

if TYPE_CHECKING:
    from .._jax.types import ClosedJaxpr, Eqn, Tree
    from .inline import Block
    from .loops import Loop


class Equation:
    """One primitive application; ``eqn`` keeps its parameters and context.

    Attributes:
        calls: the opened calls it stands in, outermost first (positions in `Graph.calls`).
        block: of a call that stays sealed, what it was opened to the first time.
    """

    __slots__ = ("block", "calls", "eqn", "inputs", "name", "outputs")

    def __init__(
        self,
        eqn: Eqn,
        inputs: tuple[Atom, ...],
        outputs: tuple[int, ...],
        calls: tuple[int, ...],
        block: Block | None = None,
    ) -> None:
        self.block = block
        self.eqn = eqn
        self.inputs = inputs
        self.outputs = outputs
        self.calls = calls
        self.name = str(eqn.primitive.name)

    @property
    def params(self) -> dict[str, Any]:
        return self.eqn.params


class OpenedCall:
    """A call that was opened: its operands and results as values of the flat program."""

    __slots__ = ("eqn", "inputs", "outputs")

    def __init__(self, eqn: Eqn, inputs: tuple[Atom, ...], outputs: tuple[Atom, ...] = ()) -> None:
        self.eqn = eqn
        self.inputs = inputs
        self.outputs = outputs


class Graph:
    """A traced init function, flat.

    Attributes:
        closed: the jaxpr as traced, which the reference backend evaluates.
        out_tree: structure of the result.
        paths: name of each output leaf, as `jax.tree_util.keystr` writes it.
        streams: name of each key, empty where there is only one.
        key_inputs, arg_inputs: value numbers of the keys and of the argument leaves.
        captured: arrays the function closed over, by value number.
        equations, outputs: the program.
        calls: the calls that were opened on the way.
        avals: abstract value of every value number.
        program: what is flattened: ``closed``, or where loops draw, that without dead code.
        loops: those loops, by what they consist of.
        computed: what of them is no draw after all, and stays in the loop (`loops.Loop`).
        left: loops that stay as they are, by the ids of their bodies, and why.
        effects: whether the function has side effects (printing, callbacks).
    """

    def __init__(
        self, closed: ClosedJaxpr, out_tree: Tree, paths: tuple[str, ...], streams: tuple[str, ...]
    ) -> None:
        self.closed = closed
        self.out_tree = out_tree
        self.paths = paths
        self.streams = streams
        self.clear()
        self.program = closed
        self.loops: dict[Any, Loop] = {}
        self.left: dict[int, str] = {}
        self.computed: dict[Loop, frozenset[int]] = {}
        self.effects = bool(closed.jaxpr.effects)

    def clear(self) -> None:
        """Leaves of a flat program what it was made from."""
        self.key_inputs: tuple[int, ...] = ()
        self.arg_inputs: tuple[int, ...] = ()
        self.captured: dict[int, Any] = {}
        self.equations: list[Equation] = []
        self.calls: list[OpenedCall] = []
        self.outputs: tuple[Atom, ...] = ()
        self.avals: list[Any] = []

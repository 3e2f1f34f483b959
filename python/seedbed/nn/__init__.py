"""Module trees, initialised and run for all members of an ensemble at once."""

from ._call import call_all_fns as call_all_fns
from ._call import call_order as call_order
from ._call import init_all_states as init_all_states
from ._call import init_function as init_function
from ._call import load_members as load_members
from ._call import plan_init as plan_init
from ._call import reset_all_states as reset_all_states
from ._call import save_members as save_members
from ._call import vmap as vmap
from ._call import vmap_call_all_fns as vmap_call_all_fns
from ._call import vmap_init_all_states as vmap_init_all_states
from ._call import vmap_new_states as vmap_new_states
from ._call import vmap_reinit_members as vmap_reinit_members
from ._call import vmap_reset_all_states as vmap_reset_all_states
from ._layers import LIF as LIF
from ._layers import Dropout as Dropout
from ._layers import GRUCell as GRUCell
from ._layers import Linear as Linear
from ._layers import Sequential as Sequential
from ._tree import BatchState as BatchState
from ._tree import HiddenState as HiddenState
from ._tree import LongTermState as LongTermState
from ._tree import Module as Module
from ._tree import NonBatchState as NonBatchState
from ._tree import ParamState as ParamState
from ._tree import ShortTermState as ShortTermState
from ._tree import State as State
from ._tree import assign_state_values as assign_state_values
from ._tree import merge as merge
from ._tree import split as split
from ._tree import take as take

__all__ = [
    "BatchState",
    "Dropout",
    "GRUCell",
    "HiddenState",
    "LIF",
    "Linear",
    "LongTermState",
    "Module",
    "NonBatchState",
    "ParamState",
    "Sequential",
    "ShortTermState",
    "State",
    "assign_state_values",
    "call_all_fns",
    "call_order",
    "init_all_states",
    "init_function",
    "load_members",
    "merge",
    "plan_init",
    "reset_all_states",
    "save_members",
    "split",
    "take",
    "vmap",
    "vmap_call_all_fns",
    "vmap_init_all_states",
    "vmap_new_states",
    "vmap_reinit_members",
    "vmap_reset_all_states",
]


def __dir__() -> list[str]:
    return list(__all__)

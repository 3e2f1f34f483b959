"""What a module and a state are: attributes and values, walked, drafted, split, taken, pickled.

Nothing here knows which functions are called on them.
"""

from . import draft as draft
from . import walk as walk
from .assign import assign_state_values as assign_state_values
from .draft import LOCK as LOCK
from .draft import UNSET as UNSET
from .draft import Content as Content
from .draft import Draft as Draft
from .draft import MemberAxis as MemberAxis
from .draft import Refused as Refused
from .module import Module as Module
from .split import merge as merge
from .split import split as split
from .state import BatchState as BatchState
from .state import HiddenState as HiddenState
from .state import LongTermState as LongTermState
from .state import NonBatchState as NonBatchState
from .state import ParamState as ParamState
from .state import ShortTermState as ShortTermState
from .state import State as State
from .state_checks import as_tags as as_tags
from .take import take as take
from .walk import Path as Path

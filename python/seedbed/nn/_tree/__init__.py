"""What a module and a state are: attributes and values, walked, split, taken, assigned, pickled.

A state or module that is written within a call tells the call's `Draft`, which keeps what they will
be until the call has succeeded, and shows it to the thread that makes the call. Nothing here knows
which methods a call calls, which keys it draws with, or how it goes over the members.
"""

from . import walk as walk
from .assign import assign_state_values as assign_state_values
from .content import UNSET as UNSET
from .content import Content as Content
from .content import MemberAxis as MemberAxis
from .content import Refused as Refused
from .draft import Draft as Draft
from .draft import active as active
from .draft import content_of as content_of
from .draft import transacted as transacted
from .held import leaves as leaves
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
from .state_checks import declared_dtype as declared_dtype
from .take import members_of as members_of
from .take import take as take

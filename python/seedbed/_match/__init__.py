"""Recognise what a traced function draws, then choose what becomes native.

`interpret` gives values their meanings, by rules for keys, draws and narrow words; `choose` makes a
plan of them, starting from what is asked for. What can run comes in as the names of kernels.
Nothing here knows a backend.
"""

from .choose import reference_plan as reference_plan
from .planned import planned as planned

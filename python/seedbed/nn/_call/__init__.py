"""What a call on all nodes of a tree, or on all members of an ensemble, does.

`methods` says what to call, `keys` what it draws with, `inputs` and `arguments` what each member
reads; `trace`, which ends as `finish` says, makes it a program of one member, which `members` runs
for all (`loop` a few at a time, `places` over devices); `publish` makes the values those of the
modules. `reinit` does so for some members, and `stored` brings members to disk and back. Nothing
here knows how a module keeps its states, or how members are drawn.
"""

from .collective import call_all_fns as call_all_fns
from .collective import init_all_states as init_all_states
from .collective import init_function as init_function
from .collective import plan_init as plan_init
from .collective import reset_all_states as reset_all_states
from .collective import vmap_call_all_fns as vmap_call_all_fns
from .collective import vmap_init_all_states as vmap_init_all_states
from .collective import vmap_reset_all_states as vmap_reset_all_states
from .keys import dummy_key as dummy_key
from .methods import call_order as call_order
from .methods import check_axis_size as check_axis_size
from .reinit import vmap_reinit_members as vmap_reinit_members
from .run import vmap as vmap
from .run import vmap_new_states as vmap_new_states
from .stored import load_members as load_members
from .stored import save_members as save_members
from .unmatched import Asked as Asked

"""What jax traced, as data, and operations on it.

Here a function becomes a jaxpr of one member (`recorded`), calls in it are opened and constants
folded (`inline`, `openers`, `fold`, `graph`), what loops draw is taken out of them (`loops`,
`bodies`), two programs are compared (`fingerprint`, between processes `digest`), and a program is
cut into what something depends on and the rest (`cut`, `tap`), or freed of what it says of places
(`offmesh`). What is drawn past jax is noticed (`ambient`). Nothing here knows what a draw is.
"""

import importlib as _importlib
import typing as _typing

from . import cut as cut
from . import fingerprint as fingerprint
from . import tap as tap
from .cut import Trimmed as Trimmed
from .cut import trim as trim
from .depth import finite as finite
from .fold import Atom as Atom
from .fold import Const as Const
from .fold import splat as splat
from .recorded import Recorded as Recorded
from .recorded import check_outputs as check_outputs
from .recorded import flatten as flatten
from .recorded import global_numbers_noticed as global_numbers_noticed
from .recorded import outlived as outlived
from .recorded import record as record
from .recorded import released_on_failure as released_on_failure
from .recorded import trace as trace

if _typing.TYPE_CHECKING:
    from . import digest as digest
    from .ambient import GlobalRandomWarning as GlobalRandomWarning
    from .graph import Equation as Equation
    from .graph import Graph as Graph
    from .inline import Block as Block
    from .inline import again as again
    from .inline import unseal as unseal
    from .loops import Loop as Loop
    from .loops import hoisted as hoisted
    from .offmesh import moved as moved
    from .offmesh import unlaid as unlaid

# Imported when the first plan is made.
_LATE = {
    "Equation": "graph",
    "GlobalRandomWarning": "ambient",
    "Graph": "graph",
    "Block": "inline",
    "again": "inline",
    "unseal": "inline",
    "Loop": "loops",
    "hoisted": "loops",
    "moved": "offmesh",
    "unlaid": "offmesh",
}


def __getattr__(name: str) -> _typing.Any:
    if name not in _LATE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(_importlib.import_module(f"{__name__}.{_LATE[name]}"), name)
    globals()[name] = found
    return found

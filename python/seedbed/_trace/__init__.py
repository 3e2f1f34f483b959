"""What jax traced, as data, and operations on it.

Here a function becomes a jaxpr of one member (`recorded`), calls in it are opened and constants
folded (`inline`, `fold`, `graph`), two programs are compared (`fingerprint`), and a program is cut
into what something depends on and the rest (`cut`, `tap`), or freed of what it says of places
(`unlaid`). Nothing here knows what a draw is.
"""

from . import cut as cut
from . import fingerprint as fingerprint
from . import tap as tap
from .cut import Trimmed as Trimmed
from .cut import trim as trim
from .depth import finite as finite
from .fold import Atom as Atom
from .fold import Const as Const
from .fold import splat as splat
from .graph import Equation as Equation
from .graph import Graph as Graph
from .inline import Block as Block
from .inline import unseal as unseal
from .recorded import Recorded as Recorded
from .recorded import check_outputs as check_outputs
from .recorded import flatten as flatten
from .recorded import outlived as outlived
from .recorded import record as record
from .recorded import released_on_failure as released_on_failure
from .recorded import trace as trace
from .unlaid import moved as moved
from .unlaid import unlaid as unlaid

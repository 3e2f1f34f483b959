"""seedbed: very large ensembles of JAX models, initialised in one fused custom call."""

__version__ = "0.1.0"

from . import adapters as adapters
from . import filters as filters
from . import nn as nn
from . import prng as prng
from . import random as random
from ._accelerate import accelerate as accelerate
from ._ensemble import Ensemble as Ensemble
from ._ensemble import ensemble as ensemble
from ._plan import Plan as Plan
from ._selfcheck import SelfCheckWarning as SelfCheckWarning

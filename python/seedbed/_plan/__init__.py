"""A plan as inert data: what is drawn, what stays, and where results come from.

It is hashable, compares by what it means, and can be shown and pickled. Nothing here knows how a
plan is found, or what runs it.
"""

from .draw import MEMBER as MEMBER
from .draw import RECORDS as RECORDS
from .draw import Draw as Draw
from .draw import KeyMode as KeyMode
from .draw import KeyPath as KeyPath
from .draw import Kind as Kind
from .draw import Level as Level
from .draw import Node as Node
from .draw import Shape as Shape
from .draw import can_tile as can_tile
from .draw import float_params as float_params
from .draw import kernel_of as kernel_of
from .draw import key_path as key_path
from .draw import make_draw as make_draw
from .draw import node as node
from .draw import params as params
from .draw import root as root
from .draw import rows_of as rows_of
from .plan import ALL_KERNELS as ALL_KERNELS
from .plan import CUDA_KERNELS as CUDA_KERNELS
from .plan import NATIVE_DTYPES as NATIVE_DTYPES
from .plan import Output as Output
from .plan import Plan as Plan
from .plan import can_fill as can_fill
from .plan import largest as largest
from .residual import Computation as Computation
from .residual import Computed as Computed
from .residual import Drawn as Drawn
from .residual import FromArgument as FromArgument
from .residual import FromCapture as FromCapture
from .residual import FromDraw as FromDraw
from .residual import FromKeys as FromKeys
from .residual import FromStep as FromStep
from .residual import FromWords as FromWords
from .residual import Literal as Literal
from .residual import Source as Source
from .residual import Splat as Splat
from .residual import Stacked as Stacked
from .residual import Step as Step
from .residual import constant as constant

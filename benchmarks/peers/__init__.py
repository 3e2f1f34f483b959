"""Who is measured: the roster of peers, and how each of them makes an ensemble of a case.

The roster is data and imports no library; a peer's own file is imported in the peer's process
alone. Nothing here knows which cases there are, how a call is timed, or what is made of its times.
"""

from . import lazy, meshes
from .roster import FRAMEWORKS, GROUPS, ISAS, PEERS, Call, Peer, Unavailable

PEERS |= meshes.PEERS | lazy.PEERS

__all__ = ["FRAMEWORKS", "GROUPS", "ISAS", "PEERS", "Call", "Peer", "Unavailable"]

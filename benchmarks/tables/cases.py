"""All cases of all tables, and how to choose among them."""

from __future__ import annotations

import fnmatch
from dataclasses import replace

from ..case import Case
from . import comparisons, limits, scale, unstored

CASES = (*comparisons.CASES, *limits.CASES, *scale.CASES, *unstored.CASES)
TABLES = tuple(dict.fromkeys(case.table for case in CASES))


def select(patterns: list[str], peers: list[str] | None = None) -> tuple[Case, ...]:
    """The cases whose name or table matches any of the patterns, with some of their peers.

    No pattern means all cases, and no peers mean all peers.

    Raises:
        ValueError: a pattern matches nothing, or no case has such a peer.
    """
    chosen = []
    for pattern in patterns or ["*"]:
        matching = [
            case
            for case in CASES
            if pattern == case.table or fnmatch.fnmatchcase(case.name, pattern)
        ]
        if not matching:
            known = ", ".join([*TABLES, *(case.name for case in CASES)])
            raise ValueError(f"--case {pattern!r} matches no case; there are {known}")
        chosen += matching
    known_peers = {peer for case in CASES for peer in case.peers}
    for peer in peers or []:
        if peer not in known_peers:
            raise ValueError(f"--peer {peer!r} is in no case; there are {sorted(known_peers)}")
    kept = [_only(case, peers) if peers else case for case in CASES if case in chosen]
    return tuple(case for case in kept if case.peers)


def _only(case: Case, peers: list[str]) -> Case:
    """The case with these peers alone, also under --quick."""
    kept = tuple(peer for peer in case.peers if peer in peers)
    quick = dict(case.quick)
    if "peers" in quick:
        quick["peers"] = tuple(peer for peer in quick["peers"] if peer in peers)
    return replace(case, peers=kept, quick=quick)

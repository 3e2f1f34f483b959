"""Ensembles written to a disk and read from it, by seedbed and by others, in turns.

Each write is of a process of its own, which makes the members as well. Nothing here knows a case or
a peer of the other tables, nor how a table is shown.
"""

"""The bounds that this machine sets a kernel, and every CPU kernel as a fraction of its own.

It compiles C++ and runs it, with nothing but the standard library. Nothing here knows Python's side
of seedbed, nor a case or a peer.
"""

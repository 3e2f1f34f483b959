"""What is measured: the cases of all tables, the models in them, and how to choose among them.

Data that names peers and imports no library. Nothing here knows how a peer makes a case, how a call
is timed, or how a table is shown.
"""

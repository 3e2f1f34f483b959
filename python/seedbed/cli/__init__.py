"""The subcommands of ``seedbed``: each module has ``add_arguments(parser)`` and ``run(args)``.

Exit codes: 0 all is well, 1 something is wrong (numbers differ, a part that was asked for
does not work, a store on disk is damaged), 2 the command line or an environment variable is not
understood, 130 interrupted by Ctrl-C.
"""

OK, WRONG, USAGE, INTERRUPTED = 0, 1, 2, 130

"""The same questions on a GPU: raw draws with what bounds them, and ensembles beside their peers.

A runner of its own, with its own workers, since a device is asked in other ways than a processor:
``python -m benchmarks.gpu``. Nothing else here knows that there are GPUs.
"""

"""Benchmarks of seedbed against what people use today, every peer in the same run.

`python -m benchmarks` from the repository root measures everything and writes
``benchmarks/results/`` and the page ``benchmarks/README.md``. Data flows one way: a case of
`benchmarks.tables` is measured (`measure`, a `worker` for each of `benchmarks.peers`) and shown by
`benchmarks.report`; `benchmarks.roofline` and `benchmarks.gpu` measure in ways of their own.
Nothing here asserts a time; what is asserted is that peers which promise the same numbers return
the same bits.
"""

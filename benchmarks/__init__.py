"""Benchmarks of seedbed against what people use today, every peer in the same run.

`python -m benchmarks` from the repository root measures everything and writes
``benchmarks/results/`` and the page ``benchmarks/README.md``. The cases are data in
`benchmarks.cases`, the peers in `benchmarks.peers`. Nothing here asserts a time; what is
asserted is that peers which promise the same numbers return the same bits.
"""

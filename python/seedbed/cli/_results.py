"""What `seedbed doctor` found: numbers of differing values, and the verdict."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from . import OK, WRONG


@dataclass
class Result:
    """Differing values of one check by instruction set, or in a run that has only one."""

    name: str
    count: int
    wrong: dict[str, int] = field(default_factory=dict)
    total_wrong: int | None = None
    by_kernel: bool = False  # of a kernel, which is not used where it differs

    def row(self, isas: list[str]) -> list[str]:
        cells = [f"{self.wrong[isa]:,} of {self.count:,}" for isa in isas]
        return [self.name, *cells]

    @property
    def failed(self) -> bool:
        return bool(self.total_wrong) or any(self.wrong.values())


def finish(results: list[Result], started: float) -> int:
    print()
    for result in results:
        if result.total_wrong is not None:
            print(f"  {result.name}: {result.total_wrong:,} of {result.count:,}")
    failed = [result.name.strip() for result in results if result.failed]
    took = f"({time.perf_counter() - started:.1f} s)"
    if not failed:
        print(f"\nNo difference found. {took}")
        return OK
    print(f"\nDIFFERENT: {'; '.join(failed)}. {took}")
    if all(result.wrong or result.by_kernel for result in results if result.failed):
        print("Kernels that differ from XLA are not used (see `seedbed info`): ensembles are")
        print("right all the same, as the last lines of the table's checks show, but slower.")
    return WRONG

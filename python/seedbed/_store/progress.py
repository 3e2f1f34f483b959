"""What long work shows while it goes on: members done, bytes a second, time left."""

from __future__ import annotations

import sys
from typing import Any, Self


class Bar:
    """A bar on the terminal, or nothing where stderr is none or `rich` is not installed.

    As a context; within it, `begin` and then `advance`.
    """

    def __init__(self, wanted: bool, what: str, members: int, member_bytes: int) -> None:
        """
        Args:
            wanted: False shows nothing.
            what: is being done, in a word.
            members: to do, in all.
            member_bytes: what one takes.
        """
        self._bar: Any = _rich() if wanted and sys.stderr.isatty() else None
        self._what = what
        self._members = members
        self._member_bytes = member_bytes
        self._task: Any = None

    def begin(self, done: int = 0) -> None:
        """Shows the bar, with some members done before."""
        if self._bar is None:
            return
        if self._task is None:
            total = self._members * self._member_bytes
            shown = {"members": done, "all": self._members}
            self._task = self._bar.add_task(self._what, total=total, **shown)
        self._bar.update(self._task, completed=done * self._member_bytes, members=done)

    def advance(self, members: int) -> None:
        """These are done, too."""
        if self._bar is not None:
            (task,) = self._bar.tasks
            members_now = task.fields["members"] + members
            self._bar.update(self._task, members=members_now)
            self._bar.advance(self._task, members * self._member_bytes)

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()


def _rich() -> Any | None:
    try:
        from rich import console, progress
    except ImportError:
        return None
    return progress.Progress(
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        progress.TextColumn("{task.fields[members]:,} of {task.fields[all]:,} members"),
        progress.DownloadColumn(),
        progress.TransferSpeedColumn(),
        progress.TimeRemainingColumn(),
        console=console.Console(stderr=True),
    )

"""The folder that a save starts with: a checkpoint of Orbax without members, and the manifest.

Orbax writes it, for a tree of the same structure with one small array for each leaf; then each of
these is made anew, of its full shape and without data. So it is Orbax that says what a checkpoint
of its is. What differs from run to run (the time, the path) is made the same.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

from .._jax import paths
from . import arrays
from .format import NAME, Manifest, rebuilt

_ORBAXS = ("_METADATA", "_CHECKPOINT_METADATA", "commit_success.txt")


def made(folder: Path, manifest: Manifest, orbax: Any, tensorstore: Any) -> None:
    """Makes ``folder``, which is not there yet, with everything but the chunks."""
    whole = rebuilt(manifest.tree, [np.zeros(1, np.uint8) for _ in manifest.leaves])
    tree = {paths.WHOLE: whole} if isinstance(manifest.tree, int) else whole
    with _quiet():
        saved = orbax.Checkpointer(
            orbax.PyTreeCheckpointHandler(
                use_ocdbt=False, use_zarr3=True, multiprocessing_options=_alone(orbax)
            ),
            multiprocessing_options=_alone(orbax),
        )
        saved.save(folder, args=orbax.args.PyTreeSave(tree))
        saved.close()
    found = {str(one.parent.relative_to(folder)) for one in folder.rglob("zarr.json")}
    # Of several processes of jax only the first has Orbax write arrays.
    if found != {leaf.name for leaf in manifest.leaves} and (found or jax.process_index() == 0):
        raise RuntimeError(
            f"this release of Orbax stores leaves as {sorted(found)}, not as "
            f"{[leaf.name for leaf in manifest.leaves]}"
        )
    for top in {Path(leaf.name).parts[0] for leaf in manifest.leaves}:
        shutil.rmtree(folder / top, ignore_errors=True)
    _without_time(folder)
    opened = [
        tensorstore.open({**arrays.spec(folder, manifest, leaf), "create": True})
        for leaf in manifest.leaves
    ]
    for one in opened:
        one.result()
    _distinct(folder, manifest)
    (folder / NAME).write_text(manifest.text(), encoding="utf-8")


def _without_time(folder: Path) -> None:
    for one in folder.iterdir():
        if one.name not in _ORBAXS and one.is_file():
            raise RuntimeError(f"this release of Orbax writes {one.name}, which is not known here")
    (folder / "commit_success.txt").write_text("committed\n", encoding="utf-8")
    file = folder / "_CHECKPOINT_METADATA"
    fields = json.loads(file.read_text(encoding="utf-8"))
    fields["init_timestamp_nsecs"] = fields["commit_timestamp_nsecs"] = 0
    fields["metrics"], fields["performance_metrics"] = {}, {}
    file.write_text(json.dumps(fields), encoding="utf-8")


def _distinct(folder: Path, manifest: Manifest) -> None:
    """Whether each leaf has a folder of its own: some file systems ignore the case of names."""
    places: dict[tuple[int, int], str] = {}
    for leaf in manifest.leaves:
        status = os.stat(folder / leaf.name)
        other = places.setdefault((status.st_dev, status.st_ino), leaf.path)
        if other is not leaf.path:
            raise ValueError(f"leaves {other} and {leaf.path} have one name on this file system")


def _alone(orbax: Any) -> Any:
    """That no other process takes part, also where there are some."""
    options = orbax.options.MultiprocessingOptions
    if jax.process_count() == 1:
        return options()
    here = jax.process_index()
    return options(
        primary_host=here, active_processes={here}, barrier_sync_key_prefix=f"seedbed{here}"
    )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without Orbax's warnings of what is meant here."""
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)

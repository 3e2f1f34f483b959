"""The libraries that a store needs, which ``seedbed[save]`` installs."""

from __future__ import annotations

import importlib
from typing import Any


def library(name: str, what: str) -> Any:
    """A library of the extra ``save``.

    Args:
        name: of the module.
        what: that is about to be done, as in "`save` writes ...".

    Raises:
        ImportError: it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ImportError(
            f"{what} with {name}, which is not installed ({error}): pip install 'seedbed[save]'"
        ) from error

"""How a result is stored."""

from __future__ import annotations

import json
import re
from typing import Any


def text(run: dict[str, Any]) -> str:
    """JSON: indented, but with lists of numbers on one line."""
    indented = json.dumps(run, indent=1)
    return re.sub(r"\[([-+.\de,\s]+)\]", lambda m: f"[{' '.join(m[1].split())}]", indented) + "\n"

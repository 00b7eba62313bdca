"""Where everything that is fetched, built or logged lives."""

from __future__ import annotations

import os
from pathlib import Path

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parent.parent


def home() -> Path:
    """`$PITH_HOME/peers`, by default beside pith's own models in the user's cache."""
    if own := os.environ.get("PITH_HOME"):
        return Path(own) / "peers"
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "pith" / "peers"

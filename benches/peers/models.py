"""Builds pith and asks it for the models, so that every engine reads the same files."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

from cells import Model
from home import REPOSITORY


class CannotPrepare(Exception):
    """Why there is no pith or no model."""


def built() -> Path:
    """Compiles pith as it ships; where it is."""
    _run(["cargo", "build", "--release", "--locked", "--bin", "pith"], capture=False)
    metadata = json.loads(_run(["cargo", "metadata", "--no-deps", "--format-version", "1", "--locked"]))
    return Path(metadata["target_directory"]) / "release" / "pith"


def pulled(pith: Path, models: list[Model]) -> dict[str, str]:
    """Fetches the models where they are missing; their files by name."""
    _run([str(pith), "pull", *(model.name for model in models)], capture=False)
    listed = _run([str(pith), "models"])
    paths = listed_paths(listed)
    for model in models:
        if not os.path.isfile(paths.get(model.name, "")):
            raise CannotPrepare(f"`pith models` names no file for {model.name}:\n{listed}")
    return paths


def listed_paths(listed: str) -> dict[str, str]:
    """File by model, from what `pith models` prints: a table whose first column is NAME and whose last is PATH."""
    head, *rows = listed.splitlines() or [""]
    at = head.find("PATH")
    return {row.split()[0]: row[at:].strip() for row in rows if row.strip()} if at >= 0 else {}


def _run(command: list[str], *, capture: bool = True) -> str:
    """Standard output, which goes to standard error if it is not captured."""
    try:
        out = subprocess.PIPE if capture else 2
        done = subprocess.run(command, cwd=REPOSITORY, stdout=out, text=True, check=False)
    except OSError as error:
        raise CannotPrepare(f"cannot run {command[0]}: {error}") from None
    if done.returncode != 0:
        raise CannotPrepare(f"`{' '.join(command)}` ended with {done.returncode}")
    return done.stdout or ""

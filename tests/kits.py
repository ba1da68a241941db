"""What test folders share: a file that several import by its name alone, and the end of a process."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any


def load(path: str, name: str = "") -> Any:
    """The file at a path below the tests, from then on importable by its own name or the one that is given."""
    place = Path(__file__).parent / path
    name = name or place.stem
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, place)
        assert spec is not None
        assert spec.loader is not None
        module = sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return sys.modules[name]


def is_gone(pid: int) -> bool:
    """Whether all threads of a process have ended, reaped or not: until the last has, what they held is held."""
    tasks = Path(f"/proc/{pid}/task")
    try:
        stats = [(task / "stat").read_text() for task in tasks.iterdir()]
    except (FileNotFoundError, ProcessLookupError):
        return not tasks.exists()  # one of them may have ended as it was looked at
    return all(stat.rpartition(")")[2].split()[0] in "ZX" for stat in stats)

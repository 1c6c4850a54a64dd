"""`m2dx specialise`: is a specialised encoder worth it for these recordings, and which one."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from m2dx_specialise.search import Specialised as Specialised
    from m2dx_specialise.search import specialise as specialise
    from m2dx_specialise.training import Stopped as Stopped

_HOMES = {"Specialised": "search", "specialise": "search", "Stopped": "training"}
__all__ = list(_HOMES)


def __getattr__(name: str) -> object:
    """Imported when they are first used, so that the command answers before torch is there."""
    if name not in _HOMES:
        raise AttributeError(f"module 'm2dx_specialise' has no attribute {name!r}")
    return getattr(import_module(f"m2dx_specialise.{_HOMES[name]}"), name)

"""m2dx: multitask audio pre-training with Masked Modeling Duo (M2D-X). These are the public names.

Each is imported when it is first used, so that the command line starts without torch.
"""

import getpass
import os
import re
from importlib import import_module
from pathlib import Path

try:
    getpass.getuser()
except (KeyError, ImportError, OSError):
    # A container's user has no name, for which torch asks when it is imported.
    os.environ["LOGNAME"] = "nobody"

# Each name stands once, in the file that type checkers read.
_STUB = Path(__file__).with_suffix(".pyi").read_text(encoding="utf-8")
_HOMES = {name: home for home, name in re.findall(r"^from (\S+) import (\w+)", _STUB, re.MULTILINE)}
__all__ = ["__version__", *sorted(_HOMES)]


def __getattr__(name: str) -> object:
    value: object
    if name == "__version__":
        from m2dx.contract.package import package_version

        value = package_version()
    elif name in _HOMES:
        value = getattr(import_module(_HOMES[name]), name)
    elif name == "specialise":
        try:
            value = import_module("m2dx_specialise").specialise
        except ModuleNotFoundError as error:
            raise AttributeError("m2dx.specialise needs the package m2dx-specialise; install it") from error
    else:
        raise AttributeError(f"module 'm2dx' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__

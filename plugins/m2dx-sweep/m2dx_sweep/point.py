"""A run of a sweep, which ends with it: a sweep that was killed leaves no run that would be in the way of the next.

    python -m m2dx_sweep.point PID MODULE ARGUMENTS

runs a module as `python -m MODULE ARGUMENTS`, for as long as the process PID is its parent.
"""

from __future__ import annotations

import runpy
import sys

from m2dx.contract.parent import end_with_parent


def main() -> None:
    """Runs the module that the command line names."""
    parent, module = sys.argv[1:3]
    end_with_parent(int(parent))
    sys.argv = [module, *sys.argv[3:]]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()

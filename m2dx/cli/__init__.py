"""The command line: arguments only. Each command imports what takes time by itself."""

from __future__ import annotations

import errno
import io
import logging
import os
import sys

import typer

from m2dx.cli import encoders, reference, training
from m2dx.cli.plugin_commands import CommandGroup
from m2dx.cli.terminal import PrintableFormatter, print_error
from m2dx.contract.errors import M2dxError, PluginError, RecipeError
from m2dx.contract.package import package_version

_OF_THE_DISK = frozenset(
    {
        errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENAMETOOLONG, errno.ENOTDIR,
        errno.EISDIR, errno.EEXIST, errno.ENOENT, errno.EMFILE, errno.ENFILE, errno.EIO, errno.ELOOP, errno.EFBIG,
    }
)  # fmt: skip
"""Errors of the system that the user can mend."""

SPINS = "20000"
"""Threads of torch (Linux) that wait for another keep their core for a millisecond, not for ten.

With all cores busy it is the core that the other needs; see benchmarks/waiting_threads.py.
"""

app = typer.Typer(
    name="m2dx",
    cls=CommandGroup,
    help="Pre-train audio encoders with Masked Modeling Duo and any extra tasks, from one recipe file.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"m2dx {package_version()}")
        raise typer.Exit


@app.callback()
def options(
    version: bool = typer.Option(
        False, "--version", is_eager=True, callback=_print_version, help="Print the version and exit."
    ),
) -> None:
    """The options of the program itself."""


for module in (training, encoders, reference):
    app.add_typer(module.commands)


def main() -> None:
    """Runs the command line; errors that the user can mend are printed without a traceback.

    Under torchrun all processes read the same recipe and plugins, and the first of each machine reports their errors.
    Any other error may concern one process alone, and names it.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(PrintableFormatter("%(levelname)s: %(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    if "OMP_WAIT_POLICY" not in os.environ:  # torch is not imported yet, which reads it
        os.environ.setdefault("GOMP_SPINCOUNT", SPINS)
    alone = os.environ.get("WORLD_SIZE", "1") == "1"
    try:
        app()
    except (RecipeError, PluginError) as error:
        if alone or os.environ.get("LOCAL_RANK", "0") == "0":
            print_error(str(error))
        sys.exit(1)
    except M2dxError as error:
        print_error(str(error) if alone else f"process {os.environ.get('RANK')}: {error}")
        sys.exit(1)
    except OSError as error:
        if error.errno not in _OF_THE_DISK:
            raise
        place = f"{error.filename}: " if error.filename else ""
        help = "mend it (its space, quota, rights or name), or choose another place"
        if error.errno in (errno.EMFILE, errno.ENFILE):
            help = "allow more (ulimit -n 1024)"
        print_error(f"{place}{error.strerror}; {help}")
        sys.exit(1)

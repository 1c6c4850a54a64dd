"""`python -m m2dx_pack` is `m2dx pack`."""

from m2dx_pack.command import commands

commands()

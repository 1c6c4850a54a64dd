"""Commands that plugins add, from the entry-point group `m2dx.commands`: found by name, imported when asked for."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import EntryPoint
from typing import Any

import typer
from typer.core import TyperGroup

from m2dx.contract.errors import PluginError
from m2dx.contract.wording import problem_of

COMMAND_GROUP = "m2dx.commands"
"""Entry points of this group are named as the command, and point to a `typer.Typer`."""


@dataclass(frozen=True)
class PluginCommand:
    """A command of an installed package."""

    name: str
    entry_points: tuple[EntryPoint, ...]  # one, unless packages clash

    @property
    def packages(self) -> tuple[str, ...]:
        """The packages that it is from, each with its version."""
        packages = (point.dist for point in self.entry_points)
        return tuple(f"{package.name} {package.version}" if package else "-" for package in packages)

    def load(self) -> Any:
        """The command. Raises PluginError where it cannot be imported, is no typer app, or clashes."""
        where = f"the command {self.name!r} of {' and '.join(self.packages)}"
        if len(self.entry_points) > 1:
            raise PluginError(f"{where} must be in one package; uninstall all but one")
        try:
            app = self.entry_points[0].load()
        except (Exception, SystemExit) as error:  # whatever a plugin raises is its own error
            raise PluginError(f"{where} could not be imported: {problem_of(error)}") from error
        if not isinstance(app, typer.Typer):
            raise PluginError(
                f"{where} must be a typer.Typer, but {self.entry_points[0].value} is {app!r}; "
                "see the section on commands in docs/plugins.md"
            )
        with PluginError.blaming(f"building {where} failed"):  # typer evaluates the plugin's annotations
            return _command(app, self.name)


def plugin_commands() -> Iterator[PluginCommand]:
    """Every command of the installed packages, by name; nothing is imported."""
    found: dict[str, list[EntryPoint]] = {}
    for point in importlib.metadata.entry_points(group=COMMAND_GROUP):
        found.setdefault(point.name, []).append(point)
    for name in sorted(found):
        yield PluginCommand(name, tuple(found[name]))


class CommandGroup(TyperGroup):
    """The core's commands, then those of plugins; a name that the core has is the core's.

    Of the plugins, only the one is imported whose command is typed, or all for the list of commands. One that cannot
    be loaded says why in that list, and stops nothing else.
    """

    def list_commands(self, ctx: Any) -> list[str]:
        """Names of the commands, those of plugins last."""
        core = super().list_commands(ctx)
        return [*core, *(command.name for command in plugin_commands() if command.name not in core)]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The command of that name, or None."""
        core = super().get_command(ctx, cmd_name)
        if core is not None:
            return core
        for command in plugin_commands():
            if command.name == cmd_name:
                try:
                    return command.load()
                except PluginError as error:
                    return _broken(cmd_name, error)
        return None

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command that was typed; for a name that is none, an error that suggests others."""
        if self.get_command(ctx, args[0]) is None:
            names: dict[str, Any] = dict.fromkeys(self.list_commands(ctx))
            self.commands.update(names)  # what typer suggests from
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        """Runs the command that was typed; of a wrong value, the error is without pydantic's first words."""
        try:
            return super().invoke(ctx)
        except typer.BadParameter as error:
            error.message = error.message.removeprefix("Value error, ")
            raise


def _command(app: typer.Typer, name: str) -> Any:
    """The app as one command, without options of its own for shell completion; with several commands, as a group."""
    single = len(app.registered_commands) == 1 and not (app.registered_groups or app.registered_callback)
    parent = typer.Typer(add_completion=False)
    parent.add_typer(app, name=None if single else name)
    (command,) = typer.main.get_command(parent).commands.values()  # type: ignore[attr-defined]
    command.name = name
    return command


def _broken(name: str, error: PluginError) -> Any:
    """A command that takes anything and raises the error."""
    app = typer.Typer(add_completion=False)

    @app.command(
        name,
        help=f"(cannot be used: {error})",
        add_help_option=False,
        context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
    )
    def fail(context: typer.Context) -> None:
        raise error

    return typer.main.get_command(app)

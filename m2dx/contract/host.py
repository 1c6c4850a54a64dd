"""Finds plugins, looks up and builds their components, and blames the right plugin when that fails."""

from __future__ import annotations

import importlib
import importlib.metadata
import inspect
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import pluggy

from m2dx.contract import hookspecs
from m2dx.contract.components import KINDS, OFFERED
from m2dx.contract.errors import PluginError
from m2dx.contract.options import ComponentSpec, Signature, option_model, signature_of
from m2dx.contract.wording import problem_of, suggestion

CORE = "m2dx"  # name of the plugin that holds the core's own components

RESTRICTION = "M2DX_PLUGINS"
"""Environment variable: entry-point names, separated by commas; empty: none; not set: all."""


def hook_name(kind: str) -> str:
    """The hook that returns the components of a kind: its plural."""
    return f"{kind}es" if kind.endswith("s") else f"{kind}s"


@dataclass
class PluginRecord:
    """What is known about one plugin; of a broken one as far as that is."""

    name: str  # of the entry point
    distribution: str | None = None  # the installed package; None: registered from Python
    version: str | None = None  # of the package
    error: str | None = None  # why it cannot be used, or which of its components clash with another plugin's
    classes: dict[tuple[str, str], Any] = field(default_factory=dict)  # by kind and name, as the next two
    signatures: dict[tuple[str, str], Signature] = field(default_factory=dict)
    models: dict[tuple[str, str], type[ComponentSpec]] = field(default_factory=dict)

    @property
    def components(self) -> dict[str, tuple[str, ...]]:
        """Names of its components by kind."""
        return {kind: tuple(name for k, name in self.classes if k == kind) for kind, _ in self.classes}


class PluginHost:
    """The components of the core and of plugins. Broken plugins are kept in `records` and never stop other work."""

    def __init__(self, plugins: Mapping[str, object] | None = None) -> None:
        """A host with these plugins (modules or objects with hook implementations) and no others."""
        self._manager = pluggy.PluginManager("m2dx")
        self._manager.add_hookspecs(hookspecs)
        self._plugins: list[PluginRecord] = []
        self.revision = 0  # counts what was loaded
        self._left_out: tuple[str, ...] = ()
        for name, plugin in (plugins or {}).items():
            self.register(name, plugin)

    @classmethod
    def discover(cls) -> PluginHost:
        """A host with the core and every installed plugin that `M2DX_PLUGINS` allows.

        Raises `PluginError` when `M2DX_PLUGINS` names a plugin that is not installed.
        """
        host = cls()
        found = importlib.metadata.entry_points(group=hookspecs.ENTRY_POINT_GROUP)
        points = sorted(found, key=lambda point: (point.name != CORE, point.name))
        names = [point.name for point in points]
        if CORE not in names:
            raise PluginError("m2dx must be installed, so that its components are found: pip install -e .")
        wanted = _wanted(set(names) - {CORE})
        for point in points:
            if point.name in wanted:
                package = (point.dist.name, point.dist.version) if point.dist else (None, None)
                host._load(PluginRecord(point.name, *package), point.load)
        host._left_out = tuple(name for name in names if name not in wanted)
        return host

    def register(self, name: str, plugin: object) -> None:
        """Adds a plugin; one that is not usable is recorded with the reason."""
        self._load(PluginRecord(name), lambda: plugin)

    @property
    def records(self) -> tuple[PluginRecord, ...]:
        """Every plugin, the core first."""
        return tuple(replace(plugin, error=plugin.error or self._clashes(plugin)) for plugin in self._plugins)

    def names(self, kind: str) -> tuple[str, ...]:
        """Names of the usable components of a kind, sorted."""
        return tuple(sorted(name for name in self._known(kind) if len(self._owners(kind, name)) == 1))

    def component(self, kind: str, name: str) -> Any:
        """The class of a component.

        Raises `PluginError` when there is none of that name, when its plugin is broken, or when two plugins have one.
        """
        return self._owner(kind, name).classes[kind, name]

    def option_model(self, kind: str, name: str) -> type[ComponentSpec]:
        """The strict model of a component's section in a recipe. Raises as `component` does."""
        return self._owner(kind, name).models[kind, name]

    def plugin_of(self, kind: str, name: str) -> str:
        """Name of the plugin that a component is from; the core's is `CORE`. Raises as `component` does."""
        return self._owner(kind, name).name

    def origin(self, kind: str, name: str) -> str:
        """A component as errors name it: 'mine' of plugin 'acme', or 'knn' of the core. Raises as `component` does."""
        plugin = self.plugin_of(kind, name)
        return repr(name) if plugin == CORE else f"{name!r} of plugin {plugin!r}"

    def build(self, kind: str, spec: ComponentSpec, **offered: object) -> Any:
        """A component with the options of its section; `offered` is what the engine gives, by name.

        Raises `PluginError` when its `__init__` fails, unless that raises an error of m2dx itself.
        """
        owner = self._owner(kind, spec.name)
        signature = owner.signatures[kind, spec.name]
        from_engine = [offered[argument] for argument in signature.from_engine]
        with PluginError.blaming(f"{kind} {spec.name!r} of plugin {owner.name!r} could not be built"):
            return owner.classes[kind, spec.name](*from_engine, **spec.options())

    def _known(self, kind: str) -> set[str]:
        return {name for plugin in self._plugins for of_kind, name in plugin.classes if of_kind == kind}

    def _owners(self, kind: str, name: str) -> list[PluginRecord]:
        return [plugin for plugin in self._plugins if plugin.error is None and (kind, name) in plugin.classes]

    def _owner(self, kind: str, name: str) -> PluginRecord:
        if kind not in KINDS:
            raise ValueError(f"there is no component kind {kind!r}; {suggestion(kind, KINDS)}")
        owners = self._owners(kind, name)
        if len(owners) == 1:
            return owners[0]
        label = kind.replace("_", " ")
        if owners:
            raise PluginError(
                f"the {label} {name!r} is in {len(owners)} plugins: {', '.join(map(_label, owners))}; "
                f"uninstall all but one, or choose with {RESTRICTION}"
            )
        for plugin in self._plugins:
            if (kind, name) in plugin.classes:
                owner = _label(plugin)
                raise PluginError(
                    f"the {label} {name!r} of the plugin {owner} cannot be used: {plugin.error}"
                )
        text = f"there is no {label} {name!r}; {suggestion(name, self.names(kind))}"
        if broken := [f"{_label(plugin)} ({plugin.error})" for plugin in self._plugins if plugin.error]:
            text += f"; these plugins failed to load and may provide it: {', '.join(broken)}"
        if self._left_out:
            text += f"; {RESTRICTION} leaves out: {', '.join(self._left_out)}"
        raise PluginError(text)

    def _clashes(self, plugin: PluginRecord) -> str | None:
        clashes = [
            f"the {kind.replace('_', ' ')} {name!r} is also in {', '.join(map(_label, others))}"
            for kind, name in plugin.classes
            if (others := [owner for owner in self._owners(kind, name) if owner is not plugin])
        ]
        return "; ".join(clashes) or None

    def _load(self, loaded: PluginRecord, load: Callable[[], object]) -> None:
        """Whatever a plugin raises is its own error, SystemExit included: the others go on."""
        namesake = next((plugin for plugin in self._plugins if plugin.name == loaded.name), None)
        self._plugins.append(loaded)
        self.revision += 1
        if namesake is not None:
            loaded.error = f"the name {loaded.name!r} is taken by {_label(namesake)}; uninstall one of them"
            return
        plugin = None
        try:
            plugin = load()
            self._manager.register(plugin, loaded.name)
            problems = [*self._hook_problems(plugin), *self._collect(loaded, plugin)]
            loaded.error = "; ".join(problems) or None
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            loaded.error = problem_of(error)
        if loaded.error is not None and plugin is not None and self._manager.get_name(plugin) == loaded.name:
            self._manager.unregister(plugin)

    def _hook_problems(self, plugin: object) -> Iterator[str]:
        callers = self._manager.get_hookcallers(plugin) or []
        hooks = [hook_name(kind) for kind in KINDS]
        for caller in callers:
            if not caller.has_spec():
                yield f"there is no hook {caller.name!r}; {suggestion(caller.name, hooks)}"
        found = {caller.name for caller in callers}
        bare = [hook for hook in hooks if hook not in found and callable(getattr(plugin, hook, None))]
        for hook in bare:
            yield f"the hook {hook!r} needs the decorator @m2dx.hookimpl"
        if not found and not bare:
            yield f"it implements no hook with @m2dx.hookimpl (hooks: {', '.join(hooks)})"

    def _collect(self, loaded: PluginRecord, plugin: object) -> Iterator[str]:
        """All hooks run even if one fails, so that as many names of a broken plugin as possible are known."""
        for kind in KINDS:
            hook = hook_name(kind)
            for implementation in getattr(self._manager.hook, hook).get_hookimpls():
                if implementation.plugin is not plugin:
                    continue
                try:
                    components = implementation.function()
                except (Exception, SystemExit) as error:
                    yield f"the hook {hook!r} failed: {problem_of(error)}"
                    continue
                if not isinstance(components, list | tuple):
                    yield f"the hook {hook!r} must return a list of classes, but gave {components!r}"
                    continue
                yield from (text for component in components if (text := _add(loaded, kind, component)))


def _add(loaded: PluginRecord, kind: str, component: Any) -> str | None:
    """Adds a component to its plugin; the reason where it breaks the rules of its kind."""
    base = KINDS[kind]
    if not (inspect.isclass(component) and issubclass(component, base)):
        return f"the hook {hook_name(kind)!r} must return subclasses of m2dx.{base.__name__}, but gave {component!r}"
    name = getattr(component, "name", None)
    if not isinstance(name, str) or not name or name != name.strip():
        return f"{component.__name__} must have a class attribute `name`, a text, but it is {name!r}"
    if (kind, name) in loaded.classes:
        other = loaded.classes[kind, name].__name__
        return f"{component.__name__} and {other} have one name, {name!r}"
    loaded.classes[kind, name] = component
    if inspect.isabstract(component):
        missing = ", ".join(sorted(getattr(component, "__abstractmethods__", ())))
        return f"{component.__name__} ({name!r}) lacks what its kind must have: {missing}"
    try:
        signature = signature_of(component, base=base, offered=OFFERED.get(kind, frozenset()))
        loaded.models[kind, name] = option_model(kind, component, signature.options)
    except Exception as error:  # a plugin's annotations and docstrings are evaluated here
        return f"{component.__name__} ({name!r}): {error}"
    loaded.signatures[kind, name] = signature
    return None


def _wanted(installed: set[str]) -> set[str]:
    """Of the plugins beside the core, and the core."""
    value = os.environ.get(RESTRICTION)
    wanted = installed if value is None else {name.strip() for name in value.split(",")} - {"", CORE}
    unknown = sorted(wanted - installed)
    if unknown:
        raise PluginError(
            f"{RESTRICTION} must name installed plugins, but {unknown[0]!r} is not installed; "
            f"{suggestion(unknown[0], installed)}"
        )
    return {CORE, *wanted}


def _label(plugin: PluginRecord) -> str:
    if plugin.distribution is None or plugin.distribution == plugin.name:
        return plugin.name
    return f"{plugin.name} (package {plugin.distribution})"

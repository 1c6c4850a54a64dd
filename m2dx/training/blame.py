"""Which plugin's component is at fault where one fails that a trial had found in order."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager

from m2dx.contract.components import KINDS
from m2dx.contract.errors import M2dxError, PluginError
from m2dx.contract.host import CORE, PluginHost
from m2dx.contract.wording import problem_of
from m2dx.training.memory import is_shortage


@contextmanager
def blaming_components(host: PluginHost, when: str) -> Iterator[None]:
    """Inside, what a plugin's component raises becomes a `PluginError` naming both; a shortage of memory stays one."""
    try:
        yield
    except M2dxError:
        raise
    except (Exception, SystemExit) as error:
        component = None if is_shortage(error) else _component_in(error, host)
        if component is None:
            raise
        raise PluginError(f"{component} failed in {when}: {problem_of(error)}") from error


def _component_in(error: BaseException, host: PluginHost) -> str | None:
    """The innermost component of a plugin that ran when an error came; None: there was none."""
    for frame, _ in reversed([*traceback.walk_tb(error.__traceback__)]):
        running = frame.f_locals.get("self")
        for kind, base in KINDS.items():
            if isinstance(running, base) and running.name in host.names(kind):  # type: ignore[attr-defined]
                name: str = running.name  # type: ignore[attr-defined]
                if host.plugin_of(kind, name) != CORE:
                    return f"{kind.replace('_', ' ')} {host.origin(kind, name)}"
    return None

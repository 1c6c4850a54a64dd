"""What comes with m2dx as a package: its version, for every room that writes it down, and an encoder with a name."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, entry_points, version
from pathlib import Path

from m2dx.contract.errors import CheckpointError, PluginError

STARTER = Path(__file__).parents[1] / "encoder" / "starter"
"""The export in the package; the folder's name stands for it where an encoder is wanted."""


def find_encoder(text: str | Path) -> Path:
    """The path of an encoder. The text `starter` is the one in the package; a file of that name is `./starter`.

    What an address such as hf://user/name stands for is found by the function that an installed package names in the
    entry points `m2dx.encoders`, under its scheme. CheckpointError where none does, or it finds nothing.
    """
    scheme, is_address, _ = text.partition("://") if isinstance(text, str) else ("", "", "")
    if not is_address:
        return STARTER if text == STARTER.name else Path(text)
    points = tuple(entry_points(group="m2dx.encoders", name=scheme))
    if not points:
        needed = "needs a package that finds encoders there; m2dx-hub does for hf://"
        raise CheckpointError(f"{text}: {scheme}:// {needed}")
    packages = [point.dist.name if point.dist else point.value for point in points]
    if len(points) > 1:
        raise PluginError(f"{text}: {scheme}:// is found by {' and '.join(packages)}; uninstall all but one")
    with PluginError.blaming(f"{text}: the package {packages[0]} cannot find it"):
        return Path(points[0].load()(text))


def package_version(package: str = "m2dx") -> str:
    """The installed version of a package; "unknown" where it is run from a source tree."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "unknown"

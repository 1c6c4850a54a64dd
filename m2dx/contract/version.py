"""The version of m2dx, for every room that writes it down."""

from importlib.metadata import PackageNotFoundError, version


def package_version(package: str = "m2dx") -> str:
    """The installed version of a package; "unknown" where it is run from a source tree."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "unknown"

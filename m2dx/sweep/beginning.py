"""A sweep is begun, or gone on with: what is on the disk must be of the same recipes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from m2dx.contract.errors import M2dxError, RecipeError
from m2dx.contract.wording import suggestion
from m2dx.recipe.loading import load_recipe, recipe_to_mapping, recipe_to_yaml
from m2dx.sweep.folder import Manifest, ManifestPoint, State, SweepFolder
from m2dx.sweep.points import Plan, Point, differences
from m2dx.training.run_folder import as_started

if TYPE_CHECKING:
    from m2dx.contract.host import PluginHost


@dataclass(frozen=True)
class Sweep:
    """A sweep whose points may be run."""

    folder: SweepFolder
    points: tuple[Point, ...]


def check_beginning(plan: Plan, *, resume: bool, host: PluginHost) -> Sweep:
    """The sweep of a plan, once nothing is in its way; writes nothing.

    RecipeError where there is a sweep already and it is not to go on (or the other way round), where it has other keys
    or points that the plan lacks, and where a run was trained with another recipe than its point's.
    """
    folder = SweepFolder(plan.folder)
    if not folder.manifest_file.exists():
        if resume:
            raise RecipeError(f"{plan.folder} has no sweep to go on with; leave out --resume to begin it")
        if (plan.folder / "recipe.yaml").exists():
            raise RecipeError(f"{plan.folder} holds a run; give the sweep another name (name=...)")
        return Sweep(folder, plan.points)
    manifest = folder.read_manifest()
    if not resume:
        raise RecipeError(
            f"{plan.folder} holds a sweep already ({count_states(folder, manifest)}): go on with --resume, or give "
            "this one another name (name=...)"
        )
    _check_same_grid(manifest, plan)
    check_runs(folder, plan.points, host)
    return Sweep(folder, plan.points)


def write_beginning(plan: Plan, source: Path) -> None:
    """Writes the recipes of a plan's points, and then its manifest."""
    folder = SweepFolder(plan.folder)
    folder.recipe("any").parent.mkdir(parents=True, exist_ok=True)
    for point in plan.points:
        file, text = folder.recipe(point.name), recipe_to_yaml(point.recipe)
        if not file.exists() or file.read_text(encoding="utf-8") != text:  # a task of Slurm may be reading it
            file.write_text(text, encoding="utf-8")
    points = tuple(ManifestPoint(point.name, point.values) for point in plan.points)
    (folder.path / "logs").mkdir(exist_ok=True)
    folder.write_manifest(Manifest(source.stem, str(source.absolute()), plan.keys, points))


def reopen(path: Path, *, host: PluginHost, names: Collection[str] = ()) -> Sweep:
    """The sweep in a folder, with its recipes as they were when it was begun; only the named points, if any are.

    RecipeError where a name is not known, where a recipe is missing or not valid any more, where the folder was moved,
    and where a run was trained with another recipe.
    """
    folder = SweepFolder(path.absolute())
    entries = folder.read_manifest().points
    check_names(names, [entry.name for entry in entries])
    points, problems = [], []
    for entry in entries:
        if names and entry.name not in names:
            continue
        try:
            recipe = load_recipe(folder.recipe(entry.name), host=host)
        except M2dxError as error:
            problems.append(str(error))
            continue
        if recipe.output.resolve() != folder.path.resolve():
            raise RecipeError(
                f"a sweep must go on in the folder that it was begun in, {recipe.output}, but is in {folder.path}; "
                "move it back, or give recipe and grid again, with --resume and output=..."
            )
        points.append(Point(entry.name, entry.values, recipe))
    if problems:
        raise RecipeError("\n".join(problems))
    check_runs(folder, points, host)
    return Sweep(folder, tuple(points))


def check_names(names: Collection[str], known: Sequence[str]) -> None:
    """RecipeError where a name is not that of a point."""
    for name in names:
        if name not in known:
            raise RecipeError(
                f"--point must be a point of the sweep, but is {name!r}; {suggestion(name, known)}"
            )


def check_runs(folder: SweepFolder, points: Sequence[Point], host: PluginHost) -> None:
    """RecipeError, for all points at once, where a run's folder has another recipe than its point."""
    problems = []
    for point in points:
        file = folder.run(point.name) / "recipe.yaml"
        if not file.exists():
            continue
        began = load_recipe(file, host=host)
        changed = differences(began, as_started(point.recipe, recipe_to_mapping(began)))
        problems += [f"  {point.name}: {', '.join(changed)}"] if changed else []
    if problems:
        raise RecipeError(
            "runs must have been trained with the recipes of their points, but these differ (run -> point):\n"
            + "\n".join(problems)
            + f"\ngive this sweep another name (name=...), or remove these runs from {folder.path}"
        )


def count_states(folder: SweepFolder, manifest: Manifest) -> str:
    """Such as "2 of 6 points finished, 1 failed"."""
    counts = Counter(folder.state(point.name) for point in manifest.points)
    finished = f"{counts[State.FINISHED]} of {len(manifest.points)} points finished"
    others = (
        f"{counts[state]} {state.value}" for state in State if state is not State.FINISHED and counts[state]
    )
    return ", ".join([finished, *others])


def _check_same_grid(manifest: Manifest, plan: Plan) -> None:
    if manifest.keys != plan.keys:
        before, now = ("  ".join(map("+".join, keys)) for keys in (manifest.keys, plan.keys))
        raise RecipeError(
            f"a sweep must go on over the keys that it was begun with ({before}), in their order, but this one is over "
            f"{now}; give it another name (name=...)"
        )
    missing = [
        point.name for point in manifest.points if point.name not in {point.name for point in plan.points}
    ]
    if missing:
        raise RecipeError(
            "a sweep may get more points when it goes on, but must keep those it has; this grid lacks "
            f"{', '.join(missing[:4])}{' ...' if len(missing) > 4 else ''}; add their values, choose points with "
            "--point, or give this sweep another name (name=...)"
        )

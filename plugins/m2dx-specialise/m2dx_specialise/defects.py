"""Faults of the recordings themselves: silence, clipping, hum, offset, bands that end early, lengths, levels."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from m2dx.contract.wording import counted
from m2dx_specialise.findings import Finding, Severity
from m2dx_specialise.listing import Clip
from m2dx_specialise.measures import SILENT_DB, Measures

CLIPPED_SHARE = 1e-3
"""Of the samples, in flat peaks."""
HUM_DB = 12.0
OFFSET = 0.02
"""Of full scale."""
SHORT_SECONDS = 0.1
LEVEL_SPREAD_DB = 30.0


def defects(clips: Sequence[Clip], measures: Sequence[Measures | None]) -> Iterator[Finding]:
    """One finding a fault, with all the clips that have it."""
    known = [(clip, found) for clip, found in zip(clips, measures, strict=True) if found is not None]

    def having(test: Callable[[Clip, Measures], bool]) -> list[tuple[Clip, Measures]]:
        return [pair for pair in known if (pair[1].silent is False) and test(*pair)]

    def finding(
        kind: str, found: Sequence[tuple[Clip, Measures]], what: str, advice: str, *, grave: float = 0.2
    ) -> Finding:
        share = len(found) / max(len(known), 1)
        verb = "is" if len(found) == 1 else "are"
        return Finding(
            kind,
            Severity.WARNING if share >= grave else Severity.NOTE,
            f"{counted(len(found), 'clip')} of {len(known)} {verb} {what}, e.g. {found[0][0].path.name}.",
            tuple(dict.fromkeys(clip.path for clip, _ in found)),
            advice,
        )

    silent = [pair for pair in known if pair[1].silent]
    if silent:
        what = f"silent (below {SILENT_DB:.0f} dB of full scale)"
        yield finding("silence", silent, what, "They are left out of training and test.", grave=0.01)
    clipped = having(lambda _, found: found.clipped > CLIPPED_SHARE)
    if clipped:
        yield finding("clipping", clipped, "clipped", "Record at a lower level.")
    hum = having(lambda _, found: found.hum_db > HUM_DB)
    if hum:
        base = np.median([found.hum_hz for _, found in hum])
        what = f"humming at {base:.0f} Hz and its harmonics"
        yield finding("hum", hum, what, "A high-pass filter, or f_min of the recipe, removes it.")
    offset = having(lambda _, found: abs(found.offset) > OFFSET)
    if offset:
        yield finding("offset", offset, "not centred on zero (DC offset)", "A high-pass filter removes it.")
    narrow = having(lambda _, found: found.band < 0.9)
    if narrow:
        edge = np.median([found.edge_hz for _, found in narrow])
        yield finding(
            "band limit",
            narrow,
            f"empty above some {edge / 1000:.1f} kHz, below half their sampling rate",
            "They are upsampled, or coded at a low rate. "
            f"Set f_max of the recipe to {edge:.0f} Hz or less, or sample at {2 * edge:.0f} Hz.",
        )
    short = having(lambda clip, _: clip.seconds < SHORT_SECONDS)
    if short:
        yield finding("short", short, f"shorter than {SHORT_SECONDS:g} s", "Check how they were cut.")
    typical = float(np.median([clip.seconds for clip, _ in known])) if known else 0.0
    long = having(lambda clip, _: clip.seconds > max(20 * typical, 30.0))
    if long:
        what = f"more than 20 times as long as the others ({typical:.1f} s)"
        yield finding("long", long, what, "Cut them, or say by `start` and `end` which part has the label.")
    levels = np.array([found.level_db for _, found in known if not found.silent])
    if len(levels) >= 10:
        low, high = np.percentile(levels, [5, 95])
        if high - low > LEVEL_SPREAD_DB:
            yield Finding(
                "levels",
                Severity.NOTE,
                f"Levels differ by {high - low:.0f} dB (from {low:.0f} to {high:.0f} dB of full scale).",
                (),
                "Encoders hear level; bring clips to one where it means nothing.",
            )

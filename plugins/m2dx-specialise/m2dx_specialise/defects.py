"""Faults of the recordings themselves: silence, clipping, hum, offset, bands that end early, lengths, levels."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from statistics import median_low

import numpy as np

from m2dx.contract.wording import counted
from m2dx_specialise.findings import Finding, named
from m2dx_specialise.listing import Clip
from m2dx_specialise.measures import SILENT_DB, Measures
from m2dx_specialise.parts import unit_seconds

CLIPPED_SHARE, OFFSET = 1e-3, 0.02  # of the samples, in flat peaks; of full scale
HUM_DB, LEVEL_SPREAD_DB = 12.0, 30.0
SHORT_SECONDS = 0.1
GRAVE = 0.2
"""Share of the clips from which on a fault is a warning; of silence, any share above a hundredth is."""

_FAULTS: dict[str, tuple[Callable[[Clip, Measures, float], bool], str, str]] = {
    "silence": (lambda clip, of, unit: of.silent, f"silent (below {SILENT_DB:.0f} dB of full scale)",
                "They are left out of training and test."),
    "clipping": (lambda clip, of, unit: of.clipped > CLIPPED_SHARE, "clipped", "Record at a lower level."),
    "hum": (lambda clip, of, unit: of.hum_db > HUM_DB, "humming at {hum:.0f} Hz and its harmonics",
            "A high-pass filter, or f_min of the recipe, removes it."),
    "offset": (lambda clip, of, unit: abs(of.offset) > OFFSET, "not centred on zero (DC offset)",
               "A high-pass filter removes it."),
    "band limit": (lambda clip, of, unit: of.edge_hz < 0.45 * of.sample_rate,
                   "empty above some {khz:.1f} kHz, below half their sampling rate",
                   "Such sound is upsampled, coded at a low rate, or has nothing there by nature. This search "
                   "needs nothing of you; in a recipe for such recordings alone, f_max may be {edge:.0f} Hz."),
    "short": (lambda clip, of, unit: clip.seconds < SHORT_SECONDS, f"shorter than {SHORT_SECONDS:g} s",
              "Check how they were cut."),
    "long": (lambda clip, of, unit: clip.seconds > 1.5 * unit,
             "longer than the {unit:.1f} s, from the start of each, that encoders and classifiers are judged by",
             "Cut them, or say by `start` and `end` in a list which part has the label."),
}  # fmt: skip
"""Fault -> whether a clip has it (`unit`: seconds that clips are compared on), what it is, and what to do."""


def defects(clips: Sequence[Clip], measures: Sequence[Measures | None]) -> Iterator[Finding]:
    """One finding a fault, with all the clips that have it."""
    known = [(clip, found) for clip, found in zip(clips, measures, strict=True) if found is not None]
    unit = unit_seconds([clip for clip, _ in known]) if known else 0.0
    for kind, (has, what, advice) in _FAULTS.items():
        found = [one for one in known if has(*one, unit) and one[1].silent is (kind == "silence")]
        if not found:
            continue
        hum = median_low(of.hum_hz for _, of in found)  # one of the mains' frequencies, not between them
        edge = float(np.median([of.edge_hz for _, of in found]))
        values = {"hum": hum, "edge": edge, "khz": edge / 1000, "unit": unit}
        count = f"{counted(len(found), 'clip')} of {len(known)} {'is' if len(found) == 1 else 'are'}"
        yield Finding(
            kind,
            "warning" if len(found) >= (0.01 if kind == "silence" else GRAVE) * len(known) else "note",
            f"{count} {what.format(**values)}, e.g. {named(found[0][0].path)}.",
            tuple(dict.fromkeys(clip.path for clip, _ in found)),
            advice.format(**values),
        )
    levels = [found.level_db for _, found in known if not found.silent]
    if len(levels) >= 10:
        low, high = np.percentile(levels, [5, 95])
        if high - low > LEVEL_SPREAD_DB:
            text = f"Levels differ by {high - low:.0f} dB (from {low:.0f} to {high:.0f} dB of full scale)."
            advice = "Encoders hear level; bring clips to one where it means nothing."
            yield Finding("levels", "note", text, (), advice)

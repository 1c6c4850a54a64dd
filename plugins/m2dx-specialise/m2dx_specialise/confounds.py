"""Labels that can be told from how a clip was recorded: a confound, which makes every score meaningless."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from m2dx_specialise.findings import Finding
from m2dx_specialise.listing import Clip, Listing
from m2dx_specialise.measures import Measures


def confounds(
    clips: Sequence[Clip], measures: Sequence[Measures | None], listing: Listing
) -> Iterator[Finding]:
    """Nothing yet."""
    yield from ()

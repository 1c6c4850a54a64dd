"""Packs: audio in a few large tar files, which `m2dx pack` writes and the data set `packed` reads."""

import m2dx


@m2dx.hookimpl
def datasets() -> list[type]:
    from m2dx_pack.reading import PackedDataset

    return [PackedDataset]

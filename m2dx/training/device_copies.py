"""Copies batches to the device; to a GPU while it works on the batch before."""

from __future__ import annotations

import torch

from m2dx.audio.crops import Batch


class DeviceCopies:
    """Gives each batch on the device.

    A GPU copies on a stream of its own. The training loop asks for a batch when it has queued the work on the one
    before, so that this copy runs beside that work, and only what follows waits for it.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None

    def __call__(self, batch: Batch) -> Batch:
        if self._stream is None:
            return batch.to(self.device)
        working = torch.cuda.current_stream(self.device)
        with torch.cuda.stream(self._stream):
            copied = batch.to(self.device)
        working.wait_stream(self._stream)
        copied.record_stream(working)
        return copied

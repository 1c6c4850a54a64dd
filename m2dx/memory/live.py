"""The bytes that are in use after each operation of a forward and backward pass, of real tensors or of fake ones."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter


class LiveMemory(TorchDispatchMode):
    """While entered, counts the bytes of the tensors that operations make, until they are freed.

    Counted are storages, so that views cost nothing. What is inside of a kernel is not seen: its workspace, copies in
    another layout. `known` are tensors that do not count, such as the weights.
    """

    def __init__(self, known: Iterable[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.bytes = self.gradient_bytes = 0
        self.timeline: list[tuple[int, int]] = []
        """Bytes in use after each operation, and those of gradients among them."""
        self._alive: dict[int, weakref.ref[Any]] = {}
        for tensor in known:
            self._note(tensor, counts=False)

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        for value in tree_iter(result):
            if isinstance(value, Tensor):
                self._note(value)
        self.timeline.append((self.bytes, self.gradient_bytes))
        return result

    def note_gradient(self, parameter: Tensor) -> None:
        """A hook for after a parameter's gradient is there."""
        if parameter.grad is not None:
            self.gradient_bytes += parameter.grad.untyped_storage().nbytes()

    def _note(self, tensor: Tensor, *, counts: bool = True) -> None:
        storage = tensor.untyped_storage()
        key = id(storage)
        if key in self._alive:
            return
        size = storage.nbytes() if counts else 0

        def freed(_: Any) -> None:
            self.bytes -= size
            del self._alive[key]

        self.bytes += size
        self._alive[key] = weakref.ref(storage, freed)


def storage_bytes(tensors: Iterable[Tensor]) -> int:
    """Bytes of the tensors' storages, a shared one once."""
    storages = {id(storage): storage for storage in (tensor.untyped_storage() for tensor in tensors)}
    return sum(storage.nbytes() for storage in storages.values())


def as_fake(module: torch.nn.Module, mode: Any) -> None:
    """Puts fake tensors of `mode` in the place of a module's parameters and buffers."""
    for part in module.modules():
        for name, parameter in part._parameters.items():
            if parameter is not None:
                fake = mode.from_tensor(parameter.detach())
                part._parameters[name] = torch.nn.Parameter(fake, requires_grad=parameter.requires_grad)
        for name, buffer in part._buffers.items():
            if buffer is not None:
                part._buffers[name] = mode.from_tensor(buffer)

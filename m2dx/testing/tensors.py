"""What holds for every torch module: its tensors move with it, it can be saved, it is deterministic, it can learn."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from m2dx.testing.rules import Subject

Run = Callable[[nn.Module, torch.device], Tensor]
"""Runs a module on inputs that are on a device."""

_CPU = torch.device("cpu")
_OWN = frozenset(vars(nn.Module()))  # attributes that every module has
_OTHER_DEVICE = re.compile(r"not on the expected device|must be on the same device|on the same device")


def check_module(subject: Subject, make: Callable[[int], nn.Module], run: Run) -> None:
    """Checks modules that `make` gives for a seed, in eval mode: tensors, device, repeats, saving, bf16."""
    module = make(0)
    if stray := next(_stray(module), None):
        subject.fail(
            f"all its tensors and modules must move and be saved with it, but {stray} does not; use nn.Parameter, "
            "register_buffer (persistent=False where __init__ computes it), nn.ModuleList or nn.ModuleDict"
        )
    with torch.no_grad():
        with subject.attempt("forward in eval mode"):
            first, again = run(module, _CPU), run(module, _CPU)
        subject.must(_same(first, again), "in eval mode it must give the same output each time")
        _check_state_dict(subject, module, make(1), run)
        with subject.attempt("forward under bf16 autocast"), torch.autocast("cpu", torch.bfloat16):
            half = run(module, _CPU)
        subject.must(
            half.shape == first.shape and bool(half.isfinite().all()),
            "its output under bf16 autocast must have the same shape and be finite; compute in float32 what needs it",
        )
        _check_devices(subject, module, run)


def _same(first: Tensor, second: Tensor) -> bool:
    return first.shape == second.shape and torch.allclose(first, second, atol=1e-6, equal_nan=True)


def _stray(module: nn.Module) -> Iterator[str]:
    """Attributes with tensors or modules that are not registered."""
    known = {id(part) for part in (*module.parameters(), *module.buffers(), *module.modules())}
    for prefix, part in module.named_modules():
        for name, value in vars(part).items():
            if name not in _OWN and any(id(found) not in known for found in _inside(value)):
                kind = type(value).__name__
                yield f"`{'.'.join(filter(None, ('self', prefix, name)))}` (a plain {kind})"


def _inside(value: Any) -> Iterator[Tensor | nn.Module]:
    """Tensors and modules in a value; results of other tensors, as weight_norm keeps, are made anew in forward."""
    if isinstance(value, nn.Module) or (isinstance(value, Tensor) and value.grad_fn is None):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _inside(item)
    elif isinstance(value, list | tuple | set):
        for item in value:
            yield from _inside(item)


def _check_state_dict(subject: Subject, module: nn.Module, other: nn.Module, run: Run) -> None:
    """Another one, built under another seed, must do the same after it has loaded the state."""
    try:
        other.load_state_dict(copy.deepcopy(module.state_dict()))
    except RuntimeError as error:
        subject.fail(
            f"its state_dict must load into a fresh one with the same options, but {' '.join(str(error).split())}"
        )
    subject.must(
        _same(run(module, _CPU), run(other, _CPU)),
        "a fresh one with the same options must give the same output after load_state_dict; keep all that is random "
        "or learned in parameters and persistent buffers",
    )


def _check_devices(subject: Subject, module: nn.Module, run: Run) -> None:
    """On the meta device, which tells tensors of another device without a GPU; on the GPU where there is one."""
    devices = [torch.device("meta")]
    if torch.cuda.is_available():
        devices.append(torch.device("cuda"))
    for device in devices:
        try:
            output = run(copy.deepcopy(module).to(device), device)
        except Exception as error:
            if device.type == "meta" and not _OTHER_DEVICE.search(str(error)):
                continue  # values are asked for, which the meta device has not
            subject.fail(
                f"after .to({str(device)!r}) all must happen on that device, but {type(error).__name__}: {error}; "
                "make tensors in forward with device=..."
            )
        subject.must(
            output.device.type == device.type,
            f"after .to({str(device)!r}) its output must be there, but is on {output.device}",
        )


def check_reaches(subject: Subject, module: nn.Module, loss: Tensor, inputs: Mapping[str, Tensor]) -> None:
    """A gradient of the loss must reach every parameter and the inputs."""
    with subject.attempt("the backward pass"):
        loss.backward()
    for name, parameter in module.named_parameters():
        subject.must(
            parameter.grad is not None,
            f"a gradient must reach every parameter, but none reaches {name}; remove it, or make it a buffer",
        )
    for name, given in inputs.items():
        gradient = given.grad
        subject.must(
            gradient is not None and bool(gradient.isfinite().all()) and bool(gradient.any()),
            f"a finite gradient must reach {name}, but it is {'missing' if gradient is None else 'zero or not finite'}",
        )

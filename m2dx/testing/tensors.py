"""Checks for every torch module: its tensors move with it, it can be saved, it is deterministic, it can learn."""

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


def check_module(subject: Subject, run: Run, **offered: object) -> None:
    """Checks a module in eval mode: tensors, device, repeats, saving, bf16. `offered`: the engine's arguments."""
    module, other = (subject.build(seed=seed, **offered).eval() for seed in (0, 1))
    if stray := next(_stray(module), None):
        subject.fail(
            f"all its tensors and modules must move and be saved with it, but {stray} does not; use nn.Parameter, "
            "register_buffer (persistent=False where __init__ computes it), nn.ModuleList or nn.ModuleDict"
        )
    with torch.no_grad():
        with subject.attempt("forward in eval mode"):
            first, again = run(module, _CPU), run(module, _CPU)
        subject.must(_same(first, again), "in eval mode it must give the same output each time")
        with subject.attempt("loading its state_dict into a fresh one with the same options"):
            other.load_state_dict(copy.deepcopy(module.state_dict()))
        subject.must(
            _same(first, run(other, _CPU)),
            "a fresh one with the same options must give the same output after load_state_dict; keep all that is "
            "random or learned in parameters and persistent buffers",
        )
        with subject.attempt("forward under bf16 autocast"), torch.autocast("cpu", torch.bfloat16):
            half = run(module, _CPU)
        subject.must(
            half.shape == first.shape and bool(half.isfinite().all()),
            "its output under bf16 autocast must have the same shape and be finite; compute in float32 what needs it",
        )
        # The meta device shows tensors left on another device, without a GPU.
        _check_device(subject, module, run, torch.device("meta"))
        if torch.cuda.is_available():
            _check_device(subject, module, run, torch.device("cuda"))


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
    """Tensors and modules in a value, except results of other tensors (as of weight_norm), which forward remakes."""
    if isinstance(value, nn.Module) or (isinstance(value, Tensor) and value.grad_fn is None):
        yield value
    elif isinstance(value, Mapping | list | tuple | set):
        for item in value.values() if isinstance(value, Mapping) else value:
            yield from _inside(item)


def _check_device(subject: Subject, module: nn.Module, run: Run, device: torch.device) -> None:
    after = f"after .to({str(device)!r})"
    try:
        output = run(copy.deepcopy(module).to(device), device)
    except Exception as error:
        elsewhere = re.search(r"not on the expected device|on the same device", str(error))
        if device.type == "meta" and not elsewhere:
            return  # the module reads values, which the meta device lacks
        subject.fail(
            f"{after} all must happen on that device, but {type(error).__name__}: {error}; make tensors in forward "
            "with device=..."
        )
    there = output.device.type == device.type
    subject.must(there, f"{after} its output must be there, but is on {output.device}")


def check_reaches(
    subject: Subject, module: nn.Module, loss: Tensor, *, may_freeze: bool = False, **inputs: Tensor
) -> None:
    """Checks that a gradient of the loss reaches every parameter and the inputs."""
    with subject.attempt("the backward pass"):
        loss.backward()
    for name, parameter in module.named_parameters():
        subject.must(
            parameter.grad is not None or (may_freeze and not parameter.requires_grad),
            f"a gradient must reach every parameter, but none reaches {name}; remove it, or make it a buffer",
        )
    for name, given in inputs.items():
        found = "missing" if given.grad is None else "zero or not finite"
        there = given.grad is not None and bool(given.grad.isfinite().all() and given.grad.any())
        subject.must(there, f"a finite gradient must reach the {name}, but it is {found}")

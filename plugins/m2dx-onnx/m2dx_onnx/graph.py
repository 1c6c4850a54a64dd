"""The ONNX graph of an encoder or a classifier, from samples to features, written out node by node.

It needs no exporter, so it is the same whatever torch made the weights; sizes of the batch and of the clips stay free.

B clips, N samples, L frames of the log-mel, F x T patches, n chunks of C patches in time, K = 1 + F*C tokens, D width.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

import m2dx
from m2dx.encoder.audio import AudioEncoder
from m2dx.encoder.finetuned import FinetunedNetwork
from m2dx.model.vit import Block, Encoder, Trunk

OPSET, IR_VERSION = 20, 9
MASKED = -1e9
"""Added to the attention on patches that are no part of a clip, so that its weight is 0."""


class Graph:
    """Nodes and constants of a graph; each operation gives the name of its output."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, onnx.TensorProto] = {}

    def constant(self, value: Any, name: str | None = None) -> str:
        """A tensor by the name, or by one that is made of its number."""
        array = value.detach().float().cpu().numpy() if isinstance(value, torch.Tensor) else value
        name = name or f"constant_{len(self.constants)}"
        self.constants[name] = numpy_helper.from_array(np.asarray(array, order="C"), name)
        return name

    def ints(self, *values: int) -> str:
        """A constant (k,) of int64."""
        return self.constant(np.array(values, np.int64))

    def number(self, value: int) -> str:
        """A constant () of int64."""
        return self.constant(np.array(value, np.int64))

    def floats(self, value: float) -> str:
        """A constant () of float32."""
        return self.constant(np.array(value, np.float32))

    def add(self, kind: str, *inputs: str, output: str | None = None, **attributes: Any) -> str:
        """A node, which gives the name of its only output."""
        output = output or f"{kind.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [output], **attributes))
        return output

    def size(self, name: str, axis: int) -> str:
        """The size () of an axis."""
        return self.add("Gather", self.add("Shape", name), self.number(axis))

    def shape(self, *sizes: int | str) -> str:
        """A shape (k,) of numbers, and of names of ()."""
        parts = [
            self.ints(size) if isinstance(size, int) else self.add("Unsqueeze", size, self.ints(0))
            for size in sizes
        ]
        return self.add("Concat", *parts, axis=0)

    def reshape(self, name: str, *sizes: int | str) -> str:
        """The tensor in another shape; -1 and names of () are allowed."""
        return self.add("Reshape", name, self.shape(*sizes))

    def unsqueeze(self, name: str, *axes: int) -> str:
        """The tensor with axes of size 1."""
        return self.add("Unsqueeze", name, self.ints(*axes))

    def until(self, name: str, end: str, axis: int) -> str:
        """The tensor up to the index () on an axis."""
        return self.add("Slice", name, self.ints(0), self.shape(end), self.ints(axis))

    def range(self, end: str) -> str:
        """(end,) of int64 from 0 on."""
        return self.add("Range", self.number(0), end, self.number(1))

    def ceil_div(self, name: str, divisor: str) -> str:
        """Integers >= 0 divided by one > 0, rounded up."""
        above = self.add("Sub", self.add("Add", name, divisor), self.number(1))
        return self.add("Div", above, divisor)

    def padded(self, name: str, axes: int, axis: int, by: str) -> str:
        """The tensor with `by` () zeros after an axis of its `axes` ones."""
        pads: list[int | str] = [0] * (2 * axes)
        pads[axes + axis] = by
        return self.add("Pad", name, self.shape(*pads))


def encoder_graph(encoder: AudioEncoder) -> onnx.ModelProto:
    """wav (B, N) at the encoder's rate and lengths (B,) in samples -> frames (B, T, F*D) and their mean, clip (B, F*D).

    Each clip's features are those that it has alone, with zeros after its own frames; long audio is split. Raises
    m2dx.CheckpointError for encoders whose positions are interpolated, which have no such bound.
    """
    if encoder.long_clips != "split":
        raise m2dx.CheckpointError(
            "an ONNX file must split long clips, but the encoder interpolates positions"
        )
    graph = Graph()
    frames = _features(graph, encoder, None, encoder.encoder.grid.shape[1])
    clip = _mean(graph, frames)
    graph.add("Identity", frames["frames"], output="frames")
    graph.add("Identity", clip, output="clip")
    return _model(graph, {"frames": ["B", "T", encoder.embed_dim], "clip": ["B", encoder.embed_dim]})


def classifier_graph(classifier: m2dx.AudioClassifier) -> onnx.ModelProto:
    """wav (B, N) of the classifier's unit and lengths (B,) -> logits (B, C) and probabilities (B, C)."""
    network, graph = classifier.network, Graph()
    encoder = network.encoder
    longest = encoder.encoder.grid.shape[1]
    if encoder.long_clips == "interpolate":
        longest = max(longest, encoder.num_frames(classifier.unit_samples))
    found = _features(graph, encoder, network.layer, longest)
    logits = _logits(graph, network, found)
    graph.add("Identity", logits, output="logits")
    graph.add(
        *(("Sigmoid", logits) if classifier.multi_label else ("Softmax", logits)), output="probabilities"
    )
    width: list[int | str] = ["B", len(classifier.label_names)]
    return _model(graph, {"logits": width, "probabilities": width})


def _model(graph: Graph, outputs: Mapping[str, list[int | str]]) -> onnx.ModelProto:
    inputs = [
        helper.make_tensor_value_info("wav", TensorProto.FLOAT, ["B", "N"]),
        helper.make_tensor_value_info("lengths", TensorProto.INT64, ["B"]),
    ]
    given = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in outputs.items()]
    made = helper.make_graph(graph.nodes, "m2dx", inputs, given, list(graph.constants.values()))
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", OPSET)], producer_name="m2dx")
    model.ir_version = IR_VERSION  # what the oldest runtimes with this opset read
    onnx.checker.check_model(model)
    return model


def _logmel(graph: Graph, encoder: AudioEncoder) -> str:
    """The standardised log-mel (B, M, L) of wav and lengths; what follows a clip's own frames is not of it."""
    logmel = encoder.logmel
    least, edge = logmel.n_fft // 2 + 1, logmel.n_fft // 2
    samples = graph.add("Max", graph.size("wav", 1), graph.number(least))
    wav = graph.padded("wav", 2, 1, graph.add("Sub", samples, graph.size("wav", 1)))
    own = graph.add("Less", graph.unsqueeze(graph.range(samples), 0), graph.unsqueeze("lengths", 1))
    wav = graph.add("Mul", wav, graph.add("Cast", own, to=TensorProto.FLOAT))
    # The place in the clip of each sample with n_fft / 2 reflected ones before and after: (B, N + n_fft).
    last = graph.add("Sub", graph.add("Max", "lengths", graph.number(least)), graph.number(1))
    last = graph.unsqueeze(last, 1)
    places = graph.range(graph.add("Add", samples, graph.number(2 * edge)))
    places = graph.add("Abs", graph.add("Sub", places, graph.number(edge)))
    beyond = graph.add("Abs", graph.add("Sub", last, graph.unsqueeze(places, 0)))
    places = graph.add("Max", graph.add("Sub", last, beyond), graph.number(0))
    wav = graph.unsqueeze(graph.add("GatherElements", wav, places, axis=1), 1)
    basis = graph.constant(_dft_basis(logmel), "dft_basis")
    spectrum = graph.add("Conv", wav, basis, strides=[logmel.hop_length])  # (B, n_fft + 2, L)
    power = graph.add("Mul", spectrum, spectrum)
    both = graph.constant(np.array([least, least], np.int64))
    real, imaginary = f"{power}_real", f"{power}_imaginary"
    graph.nodes.append(helper.make_node("Split", [power, both], [real, imaginary], axis=1))
    power = graph.add("Add", real, imaginary)  # (B, n_fft/2+1, L)
    mel = graph.add("MatMul", graph.constant(logmel.filters.T, "mel_filters"), power)
    loud = graph.add("Log", graph.add("Add", mel, graph.floats(float(np.finfo(np.float32).eps))))
    return graph.add("Div", graph.add("Sub", loud, graph.floats(encoder.mean)), graph.floats(encoder.std))


def _dft_basis(logmel: m2dx.LogMel) -> NDArray[np.float32]:
    """(n_fft + 2, 1, n_fft): cosines, then sines, of each frequency, windowed as torch.stft does."""
    n_fft = logmel.n_fft
    window = np.zeros(n_fft)
    start = (n_fft - logmel.win_length) // 2
    window[start : start + logmel.win_length] = logmel.window.double().numpy()
    turns = np.outer(np.arange(n_fft // 2 + 1), np.arange(n_fft)) % n_fft
    angles = 2 * np.pi * turns / n_fft
    return (np.concatenate([np.cos(angles), -np.sin(angles)]) * window)[:, None].astype(np.float32)


def _features(graph: Graph, encoder: AudioEncoder, layer: int | None, longest: int) -> dict[str, str]:
    """Names of frames (B, T, F*D) of a block, zeros after each clip's own, and of the counts (B,) of those.

    `longest`: patches in time that go through the network together.
    """
    vit = encoder.encoder
    if not (isinstance(vit, Encoder) and isinstance(vit.trunk, Trunk) and vit.name == Encoder.name):
        raise m2dx.CheckpointError(
            f"an ONNX file must be of the backbone {Encoder.name}, but the encoder's is {vit.name}; use the export "
            "with m2dx"
        )
    (freq, _), (_, patch), width = vit.grid.shape, vit.grid.patch_size, vit.size.embed_dim
    logmel = _logmel(graph, encoder)
    hops = graph.add("Div", "lengths", graph.number(encoder.logmel.hop_length))
    own = graph.add("Max", hops, graph.number(1))  # (B,) frames of the log-mel
    counts = graph.ceil_div(own, graph.number(patch))  # (B,) patches
    time = graph.add("ReduceMax", counts, graph.ints(0), keepdims=0)
    chunk = graph.add("Min", time, graph.number(longest))
    chunks = graph.ceil_div(time, chunk)
    whole = graph.add("Mul", graph.add("Mul", chunk, chunks), graph.number(patch))
    valid = graph.add("Less", graph.unsqueeze(graph.range(whole), 0), graph.unsqueeze(own, 1))  # (B, L)
    logmel = graph.until(graph.padded(logmel, 3, 2, whole), whole, 2)
    logmel = graph.add("Where", graph.unsqueeze(valid, 1), logmel, graph.floats(0.0))
    proj = vit.patch_embed.proj
    patches = graph.add(
        "Conv",
        graph.unsqueeze(logmel, 1),
        graph.constant(proj.weight, "patch_embed.weight"),
        graph.constant(proj.bias, "patch_embed.bias"),
        strides=list(vit.grid.patch_size),
    )  # (B, D, F, n*C)
    patches = graph.reshape(patches, 0, width, freq, chunks, chunk)
    patches = graph.add("Transpose", patches, perm=[0, 3, 2, 4, 1])  # (B, n, F, C, D)
    table = vit.positions(longest)[0].unflatten(0, (freq, longest))  # (F, longest, D)
    patches = graph.add("Add", patches, graph.until(graph.constant(table, "positions"), chunk, 1))
    tokens = graph.reshape(patches, -1, graph.add("Mul", chunk, graph.number(freq)), width)  # (B*n, F*C, D)
    cls = graph.constant(vit.cls_token + vit.pos_embed[:, :1], "class_token")
    cls = graph.add("Expand", cls, graph.shape(graph.size(tokens, 0), 1, width))
    tokens = graph.add("Concat", cls, tokens, axis=1)
    bias = _attention_bias(graph, counts, freq, chunk, chunks)
    depth = vit.size.depth if layer is None else layer
    for number, block in enumerate(vit.trunk.blocks[:depth]):
        tokens = _block(graph, tokens, cast(Block, block), bias, f"blocks.{number}", vit.size.num_heads)
    if depth == vit.size.depth:
        tokens = _norm(graph, tokens, vit.trunk.norm, "norm")
    tokens = graph.add("Slice", tokens, graph.ints(1), graph.ints(2**31), graph.ints(1))
    frames = graph.reshape(tokens, graph.size("lengths", 0), chunks, freq, chunk, width)
    frames = graph.add("Transpose", frames, perm=[0, 1, 3, 2, 4])  # (B, n, C, F, D)
    frames = graph.reshape(frames, 0, -1, freq * width)
    frames = graph.until(frames, time, 1)
    own = graph.add("Less", graph.unsqueeze(graph.range(time), 0), graph.unsqueeze(counts, 1))  # (B, T)
    own = graph.unsqueeze(own, 2)
    return {"frames": graph.add("Where", own, frames, graph.floats(0.0)), "counts": counts, "own": own}


def _attention_bias(graph: Graph, counts: str, freq: int, chunk: str, chunks: str) -> str:
    """(B*n, 1, 1, K): 0, and `MASKED` for patches after a clip's own."""
    places = graph.range(graph.add("Mul", chunk, chunks))
    beyond = graph.add("GreaterOrEqual", graph.unsqueeze(places, 0), graph.unsqueeze(counts, 1))  # (B, n*C)
    bias = graph.add("Mul", graph.add("Cast", beyond, to=TensorProto.FLOAT), graph.floats(MASKED))
    bias = graph.reshape(bias, -1, 1, chunk)  # (B*n, 1, C)
    bias = graph.add("Expand", bias, graph.shape(1, freq, 1))
    bias = graph.reshape(bias, -1, graph.add("Mul", chunk, graph.number(freq)))  # (B*n, F*C)
    cls = graph.add(
        "Mul", graph.add("Slice", bias, graph.ints(0), graph.ints(1), graph.ints(1)), graph.floats(0.0)
    )
    return graph.unsqueeze(graph.add("Concat", cls, bias, axis=1), 1, 2)


def _block(graph: Graph, x: str, block: Block, bias: str, name: str, heads: int) -> str:
    attention, mlp = block.attn, block.mlp
    width = attention.qkv.in_features
    head = width // heads
    qkv = _linear(graph, _norm(graph, x, block.norm1, f"{name}.norm1"), attention.qkv, f"{name}.attn.qkv")
    qkv = graph.add("Reshape", qkv, graph.ints(0, 0, 3, heads, head))
    qkv = graph.add("Transpose", qkv, perm=[2, 0, 3, 1, 4])  # (3, B*n, H, K, D/H)
    query, key, value = (graph.add("Gather", qkv, graph.number(part), axis=0) for part in range(3))
    query = graph.add("Mul", query, graph.floats(head**-0.5))
    weights = graph.add("MatMul", query, graph.add("Transpose", key, perm=[0, 1, 3, 2]))
    weights = graph.add("Softmax", graph.add("Add", weights, bias), axis=-1)
    mixed = graph.add("Transpose", graph.add("MatMul", weights, value), perm=[0, 2, 1, 3])
    mixed = graph.add("Reshape", mixed, graph.ints(0, 0, width))
    x = graph.add("Add", x, _linear(graph, mixed, attention.proj, f"{name}.attn.proj"))
    hidden = _linear(graph, _norm(graph, x, block.norm2, f"{name}.norm2"), mlp.fc1, f"{name}.mlp.fc1")
    return graph.add("Add", x, _linear(graph, graph.add("Gelu", hidden), mlp.fc2, f"{name}.mlp.fc2"))


def _norm(graph: Graph, x: str, norm: torch.nn.LayerNorm, name: str) -> str:
    weight, bias = (graph.constant(getattr(norm, part), f"{name}.{part}") for part in ("weight", "bias"))
    return graph.add("LayerNormalization", x, weight, bias, epsilon=norm.eps)


def _linear(graph: Graph, x: str, linear: torch.nn.Linear, name: str) -> str:
    product = graph.add("MatMul", x, graph.constant(linear.weight.T, f"{name}.weight"))
    return graph.add("Add", product, graph.constant(linear.bias, f"{name}.bias"))


def _mean(graph: Graph, found: Mapping[str, str]) -> str:
    """(B, F*D), over each clip's own frames."""
    total = graph.add("ReduceSum", found["frames"], graph.ints(1), keepdims=0)
    counts = graph.unsqueeze(graph.add("Cast", found["counts"], to=TensorProto.FLOAT), 1)
    return graph.add("Div", total, counts)


def _logits(graph: Graph, network: FinetunedNetwork, found: Mapping[str, str]) -> str:
    features = _mean(graph, found)
    vit, head = network.encoder.encoder, network.head
    if network.patchout:
        width = vit.size.embed_dim
        by_patch = graph.add("Reshape", features, graph.ints(0, vit.grid.shape[0], width))
        features = graph.add("ReduceMean", by_patch, graph.ints(1), keepdims=0)  # (B, F*D) -> (B, D)
    elif network.deviation:
        away = graph.add("Sub", found["frames"], graph.unsqueeze(features, 1))
        away = graph.add("Where", found["own"], graph.add("Mul", away, away), graph.floats(0.0))
        spread = graph.add("Sqrt", _mean(graph, {**found, "frames": away}))
        features = graph.add("Concat", features, spread, axis=1)
    norm = head.norm
    assert norm.running_mean is not None and norm.running_var is not None
    scale = (norm.running_var + norm.eps).rsqrt()
    features = graph.add(
        "Mul", graph.add("Sub", features, graph.constant(norm.running_mean)), graph.constant(scale)
    )
    return _linear(graph, features, head.linear, "head")

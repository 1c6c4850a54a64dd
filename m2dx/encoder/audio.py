"""A pre-trained encoder: audio of any length to frame and clip features."""

from __future__ import annotations

import copy
import logging
import reprlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from m2dx.contract.components import Backbone, Pooling
from m2dx.contract.errors import AudioError, CheckpointError
from m2dx.data.logmel import LOUDEST, LogMel
from m2dx.encoder.weights import Weights, read_weights
from m2dx.model.patches import time_frames
from m2dx.model.shapes import build_logmel, model_shapes
from m2dx.model.vit import Encoder
from m2dx.recipe.schema import AudioSection, ModelSection, ShortClips

if TYPE_CHECKING:
    from m2dx.contract.host import PluginHost
    from m2dx.encoder.images import ImageEncoder

logger = logging.getLogger(__name__)

PIECE_SECONDS = 60  # audio whose log-mel is held at a time, or half of it

HEAD_STD = 0.01  # of the initial weights of a classifier's linear layer, in the published code
MOST_INTERPOLATED = 16_384  # patches of an input whose positions are interpolated
SomeEncoder = TypeVar("SomeEncoder", bound="AudioEncoder | ImageEncoder")
LongClips = Literal["split", "interpolate"]
Waveform = Tensor | Sequence[Tensor]
Lengths = Tensor | Sequence[int]
Layers = Sequence[int | None]


class Head(nn.Module):
    """Batch norm without affine parameters, then a linear layer: (B, D) -> (B, C), as in published fine-tuned files."""

    def __init__(self, width: int, num_classes: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(width, affine=False)
        self.linear = nn.Linear(width, num_classes)
        nn.init.trunc_normal_(self.linear.weight, std=HEAD_STD)
        nn.init.zeros_(self.linear.bias)

    def forward(self, features: Tensor) -> Tensor:
        """Logits in float32 whatever the autocast."""
        with torch.autocast(features.device.type, enabled=False):
            logits: Tensor = self.linear(self.norm(features.to(self.linear.weight.dtype)))
        return logits.float()


class AudioEncoder(nn.Module):
    """Audio of any length to features (M2D-X, III-A2).

    Attributes: `sample_rate` (Hz, of the audio it wants), `embed_dim` (F*D, width of its features), `frame_rate` (Hz,
    of its frames), `head` (the classifier of a published fine-tuned file, or None), `trained_as` (the recipe of its
    training, as config.json has it, or None) and `mappers` (tensors of that recipe's online mappers, as `TASK.NAME`).
    """

    trained_as: Mapping[str, Any] | None = None
    mappers: Mapping[str, Tensor] = {}

    def __init__(
        self,
        encoder: Backbone,
        logmel: LogMel,
        *,
        mean: float,
        std: float,
        long_clips: LongClips = "split",
        head: Head | None = None,
    ) -> None:
        """`long_clips`: audio longer than the model's input is split (default) or has its positions interpolated."""
        super().__init__()
        if long_clips not in get_args(LongClips):
            raise ValueError(f"long_clips must be one of {get_args(LongClips)}, but is {long_clips!r}")
        self.encoder, self.logmel, self.head = encoder, logmel, head
        self.mean, self.std, self.long_clips = mean, std, long_clips
        grid = encoder.grid
        self.sample_rate = logmel.sample_rate
        self.embed_dim = grid.shape[0] * encoder.size.embed_dim
        self.frame_rate = logmel.sample_rate / logmel.hop_length / grid.patch_size[1]

    def forward(self, wav: Waveform, *, lengths: Lengths | None = None, layer: int | None = None) -> Tensor:
        """Frame features (B, T, F*D) by eq. (4), from samples (B, N) or (N,) at `sample_rate`.

        T is `num_frames(N)`, the last patch filled up with the data's mean. With `lengths` (B,) in samples, or a list
        of (N,), each clip has the features that it has alone, and zeros after its frames. `layer` is a number as in
        `layers`; default the last. Raises TypeError or ValueError for what is not audio.
        """
        return self.layers(wav, (layer,), lengths=lengths)[0]

    def num_frames(self, samples: int) -> int:
        """T, the frames of N samples: the patches over N // hop_length frames of the log-mel, 1 at least."""
        return -(-max(samples // self.logmel.hop_length, 1) // self.encoder.grid.patch_size[1])

    def times(self, frames: int) -> Tensor:
        """(T,) float64: the middle of each of the first T frames, in s from the first sample.

        A frame of the log-mel is centred at a multiple of the hop, and a frame of features has a patch of them.
        """
        patch, hop = self.encoder.grid.patch_size[1], self.logmel.hop_length
        return (torch.arange(frames, dtype=torch.float64) * patch + (patch - 1) / 2) * hop / self.sample_rate

    def stream(self, pieces: Iterable[Tensor]) -> Iterator[Tensor]:
        """Standardised log-mels (B, 1, M, L), as `chunks` gives them, of audio that comes in pieces (B, N) or (N,).

        They are those of the whole audio within rounding, but no more than two pieces of it are held, all of them only
        where positions are interpolated. Raises AudioError for audio that is too long for that.
        """
        hop, length = self.logmel.hop_length, self.encoder.grid.input_size[1]
        edge = -(-(self.logmel.n_fft // 2) // hop)  # frames whose windows reach beyond an end of the audio
        freq, patch = self.encoder.grid.shape[0], self.encoder.grid.patch_size[1]
        most = MOST_INTERPOLATED // freq * patch * hop  # samples
        held, done = torch.empty(0), 0  # samples, and how many of their frames are done
        for piece in pieces:
            frames = (held.shape[-1] // hop - edge - done) // length * length
            if self.long_clips == "interpolate" and held.shape[-1] + piece.shape[-1] > most:
                raise AudioError(
                    f"positions can be interpolated for {most / self.sample_rate:.0f} s at most "
                    f"({MOST_INTERPOLATED:,} patches), as the work grows with the square of the length; split longer "
                    "audio instead"
                )
            if self.long_clips == "split" and frames > 0:
                yield from self.chunks(self.standard_logmel(held)[..., done : done + frames])
                passed = max(done + frames - edge, 0)
                held, done = held[..., passed * hop :], done + frames - passed
            held = torch.cat((held, piece), dim=-1) if held.numel() else piece
        yield from self.chunks(self.standard_logmel(held)[..., done:])

    def layers(
        self, wav: Waveform, numbers: Layers | None = None, *, lengths: Lengths | None = None
    ) -> list[Tensor]:
        """Frame features (B, T, F*D) of blocks by number, default every block from 1 on; 0 is the patch embedding.

        Those of the last block are after the final norm. `lengths` as `forward`.
        """
        numbers = range(1, self.encoder.size.depth + 1) if numbers is None else numbers
        groups = self._groups(wav, lengths)
        found = [_side_by_side(list(self._outputs(clips, numbers))) for clips in groups.values()]
        return [_in_order(groups, layer) for layer in zip(*found, strict=True)]

    def clip(
        self,
        wav: Waveform,
        *,
        lengths: Lengths | None = None,
        layer: int | None = None,
        pooling: Pooling = "mean",
    ) -> Tensor:
        """Clip features (B, F*D): the mean of the frame features over time, or their `max`.

        `mean_deviation` has the standard deviation after the mean, (B, 2*F*D). `lengths` and `layer` as `forward`.
        """
        groups = self._groups(wav, lengths)
        chunks = (self._outputs(clips, (layer,)) for clips in groups.values())
        return _in_order(groups, [pooled((frames for (frames,) in each), pooling) for each in chunks])

    @torch.no_grad()
    def encode_file(
        self,
        path: str | Path,
        *,
        start: float = 0.0,
        duration: float | None = None,
        layer: int | None = None,
        pooling: Pooling | None = None,
    ) -> Tensor:
        """Frame features (T, F*D) of an audio file of any format, rate and length; with `pooling`, as `clip`, (F*D,).

        `start` and `duration` in s. A minute or two of audio is held at a time. Raises AudioError.
        """
        from m2dx.data.pcm import check_scale  # only files need these
        from m2dx.data.reading import AudioFile

        device = next(self.parameters()).device
        try:
            with AudioFile(path) as file:
                pieces = file.pieces(*file.extent(start, duration), sample_rate=self.sample_rate)
                chunks = self.stream(
                    torch.from_numpy(check_scale(piece))[None].to(device) for piece in pieces
                )
                frames = (self._encode_chunk(chunk, (layer,))[0] for chunk in chunks)
                found = torch.cat(list(frames), dim=1) if pooling is None else pooled(frames, pooling)
        except AudioError as error:
            raise AudioError(f"{path}: {error}") from error
        return found[0]

    def _groups(self, wav: Waveform, lengths: Lengths | None) -> dict[tuple[int, ...], list[Tensor]]:
        """Clips (b, N) that go through the network together, since they have equally many patches, by their places."""
        hop = self.logmel.hop_length
        if isinstance(wav, list | tuple):
            if not wav:
                raise ValueError("audio must be a clip or more, but is an empty list")
            for number, row in enumerate(wav):
                check_samples(row, f"audio[{number}]", least=hop, shape="(N,)", finite=True)
            rows = wav
        else:
            check_samples(wav, least=hop, finite=True)
            rows = torch.atleast_2d(wav)
            if lengths is None:
                return {tuple(range(len(rows))): [rows]}
        each = [len(row) for row in rows] if lengths is None else torch.as_tensor(lengths).flatten().tolist()
        fit = (n in range(hop, len(row) + 1) for n, row in zip(each, rows, strict=False))
        if len(each) != len(rows) or not all(fit):
            raise ValueError(
                f"lengths must be the samples of each of the {len(rows)} clips, {hop} (a frame of the log-mel) or "
                f"more, but are {reprlib.repr(each)}"
            )
        rows = [row[: int(n)] for row, n in zip(rows, each, strict=True)]
        groups: dict[int, list[int]] = {}
        for number, row in enumerate(rows):
            groups.setdefault(self.num_frames(len(row)), []).append(number)
        return {tuple(places): [rows[place][None] for place in places] for places in groups.values()}

    def _outputs(self, clips: Sequence[Tensor], numbers: Layers) -> Iterator[list[Tensor]]:
        """What the network gives for each chunk of clips (b, N) of equally many patches, all at a time."""
        streams = [self.stream(clip.split(PIECE_SECONDS * self.sample_rate, dim=-1)) for clip in clips]
        return (self._encode_chunk(torch.cat(chunks), numbers) for chunks in zip(*streams, strict=True))

    def standard_logmel(self, wav: Tensor) -> Tensor:
        """The standardised log-mel (B, 1, M, L) of samples (B, N) or (N,); L = N // hop_length, at least 1."""
        check_samples(wav)
        wav = wav[None] if wav.ndim == 1 else wav
        frames = max(wav.shape[-1] // self.logmel.hop_length, 1)
        logmel: Tensor = self.logmel(wav)[..., :frames]
        return ((logmel - self.mean) / self.std).to(next(self.encoder.parameters()).dtype)

    def encode_logmel(self, logmel: Tensor, *, layers: Layers = (None,)) -> list[Tensor]:
        """Frame features (B, T, F*D) of standardised log-mels (B, 1, M, L), as `layers`; default of the last block."""
        return _side_by_side([self._encode_chunk(chunk, layers) for chunk in self.chunks(logmel)])

    def chunks(self, logmel: Tensor) -> tuple[Tensor, ...]:
        """What goes into the network at a time of (B, 1, M, L): whole patches, all or the input's length of them."""
        length, patch = self.encoder.grid.input_size[1], self.encoder.grid.patch_size[1]
        logmel = F.pad(logmel, (0, -logmel.shape[-1] % patch))
        return logmel.split(length, dim=-1) if self.long_clips == "split" else (logmel,)

    def _encode_chunk(self, logmel: Tensor, layers: Layers) -> list[Tensor]:
        tokens, depth = self.encoder.embed(logmel), self.encoder.size.depth
        numbers = [depth if number is None else number for number in layers]
        if not all(number in range(depth + 1) for number in numbers):
            raise ValueError(f"layers must be 0 to {depth}, but are {numbers}")
        outputs = {0: tokens}
        if numbers == [depth]:  # without holding the others
            outputs[depth] = self.encoder.encode(tokens)[:, 1:]
        else:
            outputs |= {n: layer[:, 1:] for n, layer in enumerate(self.encoder.layers(tokens), start=1)}
        grid = self.encoder.grid.shape[0], logmel.shape[-1] // self.encoder.grid.patch_size[1]
        return [time_frames(outputs[number], grid) for number in numbers]


def load_encoder(
    path: str | Path,
    *,
    long_clips: LongClips = "split",
    sample_rate: int | None = None,
    num_heads: int | None = None,
    host: PluginHost | None = None,
) -> AudioEncoder:
    """The encoder of an export, a checkpoint, a run's folder or a published file: frozen, in eval mode, on the CPU.

    The text `starter` is the encoder that comes with m2dx; a file or folder of that name is `./starter`.
    `sample_rate` (Hz) and `num_heads` are for published files only, whose tensors cannot tell them; by default the
    folder's name is asked for the rate (16 kHz where it says nothing), and heads are 64 wide. `host`: the plugins that
    may have its backbone; default those that are installed.
    Raises CheckpointError where the path is missing, corrupt or something else, such as an encoder of images.
    """
    weights = read_weights(path, sample_rate=sample_rate, num_heads=num_heads)
    return audio_encoder_of(weights, long_clips=long_clips, host=host)


def load_any_encoder(path: str | Path, host: PluginHost | None = None) -> AudioEncoder | ImageEncoder:
    """What `load_encoder` or `m2dx.load_image_encoder` gives, by what the path holds."""
    weights = read_weights(path)
    if weights.config.image is None:
        return audio_encoder_of(weights, host=host)
    from m2dx.encoder.images import image_encoder_of  # most who load an encoder need no images

    return image_encoder_of(weights, host)


def audio_encoder_of(
    weights: Weights, *, long_clips: LongClips = "split", host: PluginHost | None = None
) -> AudioEncoder:
    """The encoder of weights on audio, frozen, in eval mode.

    CheckpointError where they are of images, or where an export does not give what it gave (`check_golden`).
    """
    config, published = weights.config, weights.source.startswith("published")
    if config.image is not None:
        raise CheckpointError(f"{weights.path}: an encoder of images; m2dx.load_image_encoder loads it")
    if weights.unused and published:
        logger.warning("not used by the encoder: %s", ", ".join(weights.unused))
    network = AudioEncoder(
        weights.encoder(host),
        build_logmel(config.audio),
        mean=config.mean,
        std=config.std,
        long_clips=long_clips,
        head=_published_head(weights) if published and weights.head else None,
    )
    network.requires_grad_(False).eval()
    network.trained_as, network.mappers = config.recipe, weights.mappers
    if weights.source == "export":
        from m2dx.encoder.golden import check_golden

        check_golden(network, weights.path)
    return network


def _published_head(weights: Weights) -> Head:
    num_classes, width = weights.head["linear.weight"].shape
    head = Head(width, num_classes)
    with CheckpointError.blaming(f"{weights.path}: the fine-tuned head does not fit"):
        head.load_state_dict({"norm.num_batches_tracked": torch.tensor(0), **weights.head})
    return head


def random_encoder(
    audio: AudioSection,
    model: ModelSection,
    *,
    mean: float,
    std: float,
    seed: int,
    host: PluginHost | None = None,
) -> AudioEncoder:
    """An encoder with the recipe's architecture and random weights; `host`: as for `load_encoder`."""
    shapes, spec = model_shapes(audio, model), model.backbone
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if spec.name == Encoder.name:
            network: Backbone = Encoder(shapes.grid, shapes.size)
        else:
            from m2dx.contract.host import PluginHost

            network = (host or PluginHost.discover()).build(
                "backbone", spec, grid=shapes.grid, size=shapes.size
            )
    return AudioEncoder(network, build_logmel(audio), mean=mean, std=std).eval()


def random_like(encoder: SomeEncoder, *, seed: int) -> SomeEncoder:
    """The same encoder with random weights and no head: the baseline that training has to beat. On the CPU."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = encoder.encoder.fresh()
    alike = copy.deepcopy(encoder, {id(encoder.encoder): network})  # with the network in the place of a copy
    if isinstance(alike, AudioEncoder):
        alike.head = None
    return cast(SomeEncoder, alike.cpu().eval())


def _side_by_side(chunks: list[list[Tensor]]) -> list[Tensor]:
    """The layers of the whole, from those (B, T, F*D) of its chunks."""
    return [torch.cat(parts, dim=1) for parts in zip(*chunks, strict=True)]


def pooled(chunks: Iterable[Tensor], pooling: Pooling) -> Tensor:
    """(B, D) over time, or (B, 2*D) of `mean_deviation`, of frames (B, T, D) in chunks; one is held at a time."""
    if pooling not in get_args(Pooling):
        raise ValueError(f"pooling must be one of {get_args(Pooling)}, but is {pooling!r}")
    if pooling == "max":
        return torch.stack([chunk.amax(dim=1) for chunk in chunks]).amax(dim=0)
    parts = [(chunk.shape[1], chunk.mean(dim=1), chunk.var(dim=1, correction=0)) for chunk in chunks]
    total = sum(count for count, *_ in parts)
    mean = torch.stack([count / total * part for count, part, _ in parts]).sum(dim=0)
    if pooling == "mean":
        return mean
    squares = [count / total * (var + (part - mean) ** 2) for count, part, var in parts]
    return torch.cat([mean, torch.stack(squares).sum(dim=0).sqrt()], dim=1)


def _in_order(groups: Iterable[Sequence[int]], found: Sequence[Tensor]) -> Tensor:
    """(B, ...) by the places of the groups' clips; zeros where others have frames."""
    if len(found) == 1:
        return found[0]
    order = torch.tensor([place for places in groups for place in places]).argsort()
    return pad_sequence([row for group in found for row in group], batch_first=True)[order]


def filled(rows: Tensor, samples: int, *, short_clips: ShortClips) -> Tensor:
    """Samples (B, N) of at least `samples`: fewer are padded with zeros at the end, or repeated, as crops are."""
    if (lacking := samples - rows.shape[-1]) <= 0:
        return rows
    if short_clips == "repeat":
        return rows.repeat(1, -(-samples // rows.shape[-1]))[:, :samples]
    return F.pad(rows, (0, lacking))


def check_samples(
    wav: object, name: str = "audio", *, least: int = 1, shape: str = "(N,) or (B, N)", finite: bool = False
) -> None:
    """TypeError or ValueError for what is no audio of `least` samples; `finite`, up to `LOUDEST`, waits for a GPU."""
    if not isinstance(wav, Tensor):
        raise TypeError(
            f"{name} must be a torch tensor, but is a {type(wav).__name__}; torch.from_numpy(wav) makes one of an array"
        )
    if not wav.is_floating_point():
        raise TypeError(
            f"{name} must be floating-point samples in [-1, 1], but is {wav.dtype}; for int16 give wav.float() / 32768"
        )
    if not 1 <= wav.ndim <= shape.count(")") or wav.shape[-1] < least or len(wav) == 0:
        turned = wav.ndim == 2 and len(wav) >= least > 1
        hint = "; of (samples, channels), give wav.mean(dim=1)" if turned else ""
        raise ValueError(f"{name} must be {shape} samples with N >= {least}, but is {tuple(wav.shape)}{hint}")
    if finite and not (peak := wav.abs().amax()) <= LOUDEST:
        raise ValueError(
            f"{name} must be finite samples in [-1, 1], but reaches {peak:g}; divide those of 16 bits by 32768"
        )

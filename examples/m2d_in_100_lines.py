"""M2D trained with the public classes and no recipe: python examples/m2d_in_100_lines.py [STEPS]

It learns from the recordings in examples/sounds, and leaves an encoder whose features it compares by label.
"""

import math
import sys
from pathlib import Path

import torch

import m2dx

SOUNDS = Path(__file__).parent / "sounds" / "sounds" / "instrument"
SAMPLE_RATE, CROP_SECONDS, BATCH, SEED = 16_000, 0.96, 32, 0
NUM_SAMPLES = int(CROP_SECONDS * SAMPLE_RATE)

GRID = m2dx.PatchGrid(input_size=(80, 96), patch_size=(16, 16))  # 5 x 6 patches
NUM_VISIBLE = GRID.num_patches // 2
ENCODER = m2dx.ViTSize(embed_dim=192, depth=4, num_heads=3)
PREDICTOR = m2dx.ViTSize(embed_dim=192, depth=1, num_heads=3)
PEAK_RATE, EMA_DECAY = 1e-3, (0.99, 0.999)


def read_sounds(paths: list[Path]) -> list[torch.Tensor]:
    """The recordings (N,), repeated where they are shorter than a crop."""
    wavs = [torch.from_numpy(m2dx.read_wav(path, sample_rate=SAMPLE_RATE)) for path in paths]
    return [wav.repeat(-(-NUM_SAMPLES // len(wav))) for wav in wavs]


def random_crops(wavs: list[torch.Tensor], generator: torch.Generator) -> torch.Tensor:
    """Crops (B, N) of recordings that are drawn at random."""
    crops = []
    for number in torch.randint(len(wavs), (BATCH,), generator=generator).tolist():
        start = int(torch.randint(len(wavs[number]) - NUM_SAMPLES + 1, (), generator=generator))
        crops.append(wavs[number][start : start + NUM_SAMPLES])
    return torch.stack(crops)


def random_mask(generator: torch.Generator) -> m2dx.Mask:
    """A mask of its own for each clip: (B, P), visible patches first."""
    order = torch.rand(BATCH, GRID.num_patches, generator=generator)
    return m2dx.Mask(order.argsort(dim=1), NUM_VISIBLE)


def train(wavs: list[torch.Tensor], steps: int) -> tuple[m2dx.AudioEncoder, list[float]]:
    """The trained encoder, and the loss of each step."""
    torch.manual_seed(SEED)
    generator = torch.Generator().manual_seed(SEED)
    logmel = m2dx.LogMel(sample_rate=SAMPLE_RATE)
    sample = logmel.crop(torch.cat([random_crops(wavs, generator) for _ in range(8)]))
    mean, std = sample.mean(), sample.std()

    model = m2dx.M2D(GRID, ENCODER, PREDICTOR)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=PEAK_RATE, betas=(0.9, 0.95), weight_decay=0.05)
    losses = []
    for step in range(steps):
        done = step / max(steps - 1, 1)
        for group in optimizer.param_groups:  # warm-up, then half a cosine
            group["lr"] = PEAK_RATE * min(10 * done, 0.5 * (1 + math.cos(math.pi * done)))
        inputs = (logmel.crop(random_crops(wavs, generator)) - mean) / std  # (B, 1, M, L)
        output = model(inputs, random_mask(generator), with_tokens=False)
        optimizer.zero_grad()
        output.loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 3.0)
        optimizer.step()
        model.update_target(EMA_DECAY[0] + (EMA_DECAY[1] - EMA_DECAY[0]) * done)
        losses.append(output.loss.item())
        if step % 20 == 0:
            print(f"step {step}: loss {losses[-1]:.3f}")
    return m2dx.AudioEncoder(model.online, logmel, mean=float(mean), std=float(std)).eval(), losses


def same_label(encoder: m2dx.AudioEncoder, wavs: list[torch.Tensor], labels: list[str]) -> float:
    """Share of the recordings whose nearest other one has the same label."""
    with torch.no_grad():
        features = torch.cat([encoder.clip(wav[None, :NUM_SAMPLES]) for wav in wavs])  # (n, F*D)
    features = torch.nn.functional.normalize(m2dx.Standardiser.fit(features)(features), dim=1)
    nearest = (features @ features.T).fill_diagonal_(-1.0).argmax(dim=1)
    return sum(labels[i] == labels[j] for i, j in enumerate(nearest.tolist())) / len(labels)


def main(steps: int = 200, clips: int = 240) -> list[float]:
    """Trains on the recordings, and prints what the features are worth."""
    paths = list(m2dx.list_audio(SOUNDS).readable)
    paths = paths[:: max(len(paths) // clips, 1)]
    wavs = read_sounds(paths)
    encoder, losses = train(wavs, steps)
    labels = [path.name.split("_")[0] for path in paths]
    print(f"nearest recording of the same instrument: {same_label(encoder, wavs, labels):.0%}")
    return losses


if __name__ == "__main__":
    main(*map(int, sys.argv[1:2]))

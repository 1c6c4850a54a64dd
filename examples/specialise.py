"""Is a specialised encoder worth it for a folder of recordings? The answer, and what to do with it, cell by cell.

python examples/specialise.py RECORDINGS [MINUTES]
"""

# %% Which recordings, and how long
import sys
from pathlib import Path

import torch

import m2dx
from m2dx.cli.terminal import Terminal

recordings = Path(sys.argv[1] if len(sys.argv) > 1 else "recordings")
minutes = float(sys.argv[2]) if len(sys.argv) > 2 else 10.0
folder = Path("specialised") / recordings.stem

# %% The search: audit, baselines, candidates in rungs, one test. After a stop the same cell goes on.
found = m2dx.specialise(
    recordings, minutes=minutes, output=folder, resume=(folder / "state.json").exists(), console=Terminal()
)
print(found.verdict.kind, "-", found.verdict.sentence)

# %% The encoder gives features of any audio
encoder = m2dx.load_encoder(found.encoder)
wav = torch.randn(1, encoder.sample_rate)  # (1, N), a second
print("features of a second:", tuple(encoder(wav).shape), "of a clip:", tuple(encoder.clip(wav).shape))

# %% The classifier gives probabilities of the labels
if found.classifier is not None:
    classifier = m2dx.load_classifier(found.classifier)
    for name, probability in zip(
        classifier.label_names, classifier.probabilities(wav)[0].tolist(), strict=True
    ):
        print(f"{name}: {probability:.2f}")

# %% Where it was trained, its recipe makes it again, for longer if you like
if found.recipe is not None:
    recipe = m2dx.load_recipe(
        found.recipe,
        ["name=longer", "train.epochs=100", "train.warmup_epochs=10"],
        host=m2dx.PluginHost.discover(),
    )
    print("m2dx.train(recipe) would train", recipe.name, "into", recipe.output)

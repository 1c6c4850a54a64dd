"""The downstream tasks of M2D-X (table I) as data sets, from their official files; and the tables of the papers.

Nothing heavy is imported here: `m2dx results` takes the tables of `m2dx_tasks.papers` without torch.
"""

import m2dx


@m2dx.hookimpl
def datasets() -> list[type]:
    from m2dx_tasks.environment import ESC50, UrbanSound8K
    from m2dx_tasks.music import GTZAN, NSynth, NSynthPitch, Surge
    from m2dx_tasks.speech import CREMAD, SpeechCommands, VoxCeleb1, VoxForge

    return [
        ESC50,
        UrbanSound8K,
        SpeechCommands,
        VoxCeleb1,
        VoxForge,
        CREMAD,
        GTZAN,
        NSynth,
        NSynthPitch,
        Surge,
    ]

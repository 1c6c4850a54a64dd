"""The nine models of the MSM-MAE paper (Niizumi et al., 2022): their patches and their published scores."""

from dataclasses import dataclass


@dataclass(frozen=True)
class PatchCounts:
    """A row of table 1."""

    frames: int  # T, of 10 ms
    total: int
    frequency: int
    time: int
    patch_size: tuple[int, int]


TABLE_1 = {
    "msm_mae_96": PatchCounts(96, 30, 5, 6, (16, 16)),
    "msm_mae_208": PatchCounts(208, 65, 5, 13, (16, 16)),
    "msm_mae_304": PatchCounts(304, 95, 5, 19, (16, 16)),
    "msm_mae_400": PatchCounts(400, 125, 5, 25, (16, 16)),
    "msm_mae_512": PatchCounts(512, 160, 5, 32, (16, 16)),
    "msm_mae_200_16x8": PatchCounts(200, 125, 5, 25, (16, 8)),
    "msm_mae_200_16x4": PatchCounts(200, 250, 5, 50, (16, 4)),
    "msm_mae_208_8x16": PatchCounts(208, 130, 10, 13, (8, 16)),
    "msm_mae_304_80x4": PatchCounts(304, 76, 1, 76, (80, 4)),
}

TABLES = {
    "msm_mae_96": "Table 5",
    "msm_mae_208": "Tables 5 and 6",
    "msm_mae_304": "Tables 5 and 7",
    "msm_mae_400": "Table 5",
    "msm_mae_512": "Tables 2 to 5",
    "msm_mae_200_16x8": "Table 6",
    "msm_mae_200_16x4": "Tables 2 to 4 and 6",
    "msm_mae_208_8x16": "Table 6",
    "msm_mae_304_80x4": "Table 7",
}
"""Tables that have a model; its numbers are the same in all of them."""

HEAR_TASKS = (
    "Gunshot",
    "FSD50K",
    "ESC-50",
    "Beehive",
    "Lingua10",
    "VoImit",
    "CRM-D",
    "SPC",
    "LbCount",
    "GTZ-M/S",
    "GTZAN",
    "NSPitch",
    "Mrd-Ton",
    "Mrd-Stk",
    "Beijing",
)

HEAR_SCORES = {
    "msm_mae_96": "98.8 48.7 79.9 54.8 39.0 12.6 68.0 86.6 78.7 96.9 84.4 81.0 98.2 97.3 89.8",
    "msm_mae_208": "89.9 50.8 84.9 52.0 48.2 15.7 70.4 87.5 80.3 100.0 84.9 81.3 98.3 97.5 92.8",
    "msm_mae_304": "90.5 51.7 85.3 65.3 50.6 17.2 72.0 87.3 80.6 98.4 85.6 81.2 98.1 97.5 94.9",
    "msm_mae_400": "90.5 51.8 85.6 62.6 45.9 16.9 72.8 85.8 80.1 98.5 86.0 81.6 98.5 97.7 94.5",
    "msm_mae_512": "96.4 52.2 85.6 69.4 50.0 18.3 73.4 86.4 77.8 99.2 86.1 81.2 98.3 97.5 94.9",
    "msm_mae_200_16x8": "94.0 51.1 83.9 62.0 52.4 14.7 73.1 87.7 84.5 99.2 85.7 81.7 98.6 97.6 93.6",
    "msm_mae_200_16x4": "95.2 50.9 84.3 60.4 52.9 12.8 73.3 87.3 85.8 97.7 86.3 84.0 98.6 97.5 95.3",
    "msm_mae_208_8x16": "96.4 51.2 84.6 62.0 48.4 14.1 71.4 87.0 82.8 98.5 86.4 83.2 98.4 97.5 92.8",
    "msm_mae_304_80x4": "85.7 49.1 81.5 66.0 50.0 16.8 73.8 88.1 79.7 96.9 85.5 81.0 98.1 97.6 94.5",
}
"""Percent, in the order of the tasks: (a), (b) and (c) of tables 5 to 7."""

ROWS = {"msm_mae_512": "MSM-MAE-512 (ours)", "msm_mae_200_16x4": "MSM-MAE-200 (16 × 4) (ours)"}
"""Models that are in tables 2 to 4 as well, which m2dx has."""

"""Confusion matrices and the three scores, against cycles that were counted by hand."""

import torch
from m2dx_respiratory.confusion import RespiratoryScores, confusion_matrix


def test_scores_are_those_of_hand_counted_cycles() -> None:
    confusion = torch.tensor([[6, 1, 1, 2], [2, 5, 0, 1], [1, 0, 2, 1], [0, 1, 1, 1]])
    scores = RespiratoryScores.of(confusion, normal=0)
    assert scores.specificity == 6 / 10
    assert scores.sensitivity == (5 + 2 + 1) / 15  # crackles called "both" are not found
    assert scores.score == (6 / 10 + 8 / 15) / 2
    last = RespiratoryScores.of(confusion, normal=3)
    assert (last.specificity, last.sensitivity) == (1 / 3, 13 / 22)


def test_confusion_has_a_row_for_each_true_class() -> None:
    confusion = confusion_matrix(torch.tensor([0, 0, 1, 2, 2]), torch.tensor([0, 2, 1, 1, 1]), 3)
    assert confusion.tolist() == [[1, 0, 1], [0, 1, 0], [0, 2, 0]]

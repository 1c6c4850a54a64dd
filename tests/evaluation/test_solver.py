"""The solver of logistic regressions beside scikit-learn's, at its tightest tolerance."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_info, threadpool_limits
from torch.nn import functional as F

from m2dx.evaluation import solver
from m2dx.evaluation.solver import NEVER, Basis, Regression


def drawn(n: int, width: int, classes: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Correlated features (n, width) of mean 0 and variance 1, and class numbers of uneven frequency."""
    generator = torch.Generator().manual_seed(n + width + classes)
    y = (torch.rand(n, generator=generator).square() * classes).long()
    y[:classes] = torch.arange(classes)
    x = torch.randn(classes, width, generator=generator)[y] + 2 * torch.randn(n, width, generator=generator)
    x = x + 3 * torch.randn(n, 1, generator=generator) * torch.randn(1, width, generator=generator)
    return (x - x.mean(0)) / x.std(0, correction=0), y


@pytest.mark.parametrize("balanced", [False, True])
@pytest.mark.parametrize(
    ("n", "width", "classes"),
    [(80, 6, 2), (80, 6, 3), (40, 150, 2), (40, 150, 5), (90, 90, 12), (300, 20, 7)],
)
def test_probabilities_are_those_of_scikit_learn_along_the_penalties(n, width, classes, balanced):
    x, y = drawn(n, width, classes)
    basis = Basis.of(x)
    path = Regression(basis.z, y, classes, balanced=balanced)
    for c in (1e-4, 1e-2, 1.0, 10.0):
        weight, bias = path.fit(c)
        ours = (x.double() @ basis.on_features(weight).mT + bias).softmax(1)
        peer = LogisticRegression(
            C=c, tol=1e-10, max_iter=50_000, class_weight="balanced" if balanced else None
        )
        np.testing.assert_allclose(ours, peer.fit(x.double().numpy(), y.numpy()).predict_proba(x), atol=1e-4)
        np.testing.assert_allclose(ours, (basis.z @ weight.mT + bias).softmax(1), atol=1e-9)


@pytest.mark.parametrize("balanced", [False, True])
@pytest.mark.parametrize(("n", "width"), [(80, 6), (40, 150)])
def test_multi_hot_targets_have_a_regression_each_and_constants_where_nothing_can_be_learned(
    n, width, balanced
):
    x, y = drawn(n, width, 4)
    hot = F.one_hot(y, 4) | F.one_hot(y.roll(1), 4)
    y = torch.cat([hot, torch.zeros(n, 1), torch.ones(n, 1)], dim=1)
    basis = Basis.of(x)
    weight, bias = Regression(basis.z, y, 6, balanced=balanced).fit(0.3)
    logits = basis.z @ weight.mT + bias
    for column in range(4):
        peer = LogisticRegression(
            C=0.3, tol=1e-10, max_iter=50_000, class_weight="balanced" if balanced else None
        )
        expected = peer.fit(x.double().numpy(), y[:, column].numpy()).predict_proba(x)[:, 1]
        np.testing.assert_allclose(logits[:, column].sigmoid(), expected, atol=1e-4)
    assert (logits[:, 4] == NEVER).all() and (logits[:, 5] == -NEVER).all()


@pytest.mark.parametrize("present", [[1], [0, 2], [0, 1, 3]])
def test_classes_without_clips_change_nothing_for_the_others(present):
    x, y = drawn(60, 8, len(present))
    basis = Basis.of(x)
    weight, bias = Regression(basis.z, torch.tensor(present)[y], 4).fit(1.0)
    found = (basis.z @ weight.mT + bias).softmax(1)
    absent = sorted({0, 1, 2, 3} - set(present))
    assert (found[:, absent] < 1e-3).all()
    if len(present) > 1:
        peer = LogisticRegression(C=1.0, tol=1e-10, max_iter=50_000).fit(x.double().numpy(), y.numpy())
        np.testing.assert_allclose(found[:, present], peer.predict_proba(x), atol=1e-4)


@pytest.mark.parametrize("whiten", [0.5, 1.0])
@pytest.mark.parametrize(("n", "width"), [(80, 6), (40, 150)])
def test_whitened_features_have_the_regression_of_shortened_axes(n, width, whiten):
    x, y = drawn(n, width, 3)
    x = x * torch.logspace(0, 1, width)
    basis = Basis.of(x, whiten)
    u, lengths, axes = torch.linalg.svd(x.double(), full_matrices=False)
    kept = lengths > 1e-5 * lengths[0]
    u, lengths, axes = u[:, kept], lengths[kept], axes[kept]
    expected = u * lengths ** (1 - whiten)
    expected *= lengths.norm() / expected.norm()
    torch.testing.assert_close(basis.z.norm(), x.double().norm())
    torch.testing.assert_close(basis.z.norm(dim=0).sort().values, expected.norm(dim=0).sort().values)
    weight, bias = Regression(basis.z, y, 3).fit(0.1)
    ours = (x.double() @ basis.on_features(weight).mT + bias).softmax(1)
    peer = LogisticRegression(C=0.1, tol=1e-10, max_iter=50_000).fit(expected.numpy(), y.numpy())
    np.testing.assert_allclose(ours, peer.predict_proba(expected.numpy()), atol=1e-4)


def test_few_steps_reach_the_optimum_whatever_the_width(monkeypatch):
    x, y = drawn(200, 400, 5)
    path = Regression(Basis.of(x).z, y, 5)
    calls = []
    monkeypatch.setattr(path, "_losses", lambda logits, real=path._losses: calls.append(1) or real(logits))
    for c in (1e-4, 1e-3, 1e-2, 0.1, 1.0, 10.0):
        path.fit(c)
    assert len(calls) < 6 * 40


def test_features_of_lower_rank_have_as_many_coordinates_as_their_rank():
    x, _ = drawn(50, 4, 2)
    basis = Basis.of(torch.cat([x, x, torch.zeros(50, 1)], dim=1))
    assert basis.z.shape == (50, 4)


@pytest.mark.parametrize(("n", "width", "classes"), [(300, 20, 7), (5000, 8, 2)])
def test_very_many_clips_are_fitted_in_float32(n, width, classes, monkeypatch):
    monkeypatch.setattr(solver, "MOST_DOUBLE", 100)
    x, y = drawn(n, width, classes)
    basis = Basis.of(x)
    weight, bias = Regression(basis.z, y, classes).fit(0.1)
    assert basis.z.dtype == weight.dtype == torch.float32
    ours = (x.double() @ basis.on_features(weight).mT + bias).softmax(1)
    peer = LogisticRegression(C=0.1, tol=1e-10, max_iter=50_000).fit(x.double().numpy(), y.numpy())
    np.testing.assert_allclose(ours, peer.predict_proba(x), atol=3e-4)


@pytest.mark.parametrize(("small", "torchs"), [(2**25, 1), (0, 2)])
def test_the_threads_of_two_libraries_do_not_keep_each_other_from_the_cores(monkeypatch, small, torchs):
    def threads():
        return {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"}

    def watched(logits, real=Regression._losses):
        seen.append((threads(), torch.get_num_threads()))
        return real(fit, logits)

    x, y = drawn(80, 6, 3)
    fit, seen, before = Regression(Basis.of(x).z, y, 3), [], torch.get_num_threads()
    monkeypatch.setattr(fit, "_losses", watched)
    monkeypatch.setattr(solver, "SMALL", small)
    torch.set_num_threads(2)
    try:
        with threadpool_limits(2, user_api="blas"):
            all_threads = threads()
            fit.fit(1.0)
            assert seen and all(found == ({1}, torchs) for found in seen)
            assert threads() == all_threads != {1}
            assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)

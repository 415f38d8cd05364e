"""PCA-FC against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA

from bytecover2_milvus.model.pca import fit_pca, principal_axes


@pytest.fixture(scope="module")
def pooled() -> np.ndarray:
    rng = np.random.default_rng(0)
    return (rng.normal(size=(300, 12)) @ rng.normal(size=(12, 40)) + rng.normal(size=(300, 40)) * 0.1 + 1).astype("f")


def test_layer_equals_scikit_learns_projection(pooled):
    reference = PCA(8, svd_solver="full").fit_transform(pooled.astype(np.float64))
    with torch.inference_mode():
        ours = fit_pca(pooled, 8)(torch.from_numpy(pooled)).numpy()
    signs = np.sign((ours * reference).sum(axis=0))  # an eigenvector is known up to its sign
    np.testing.assert_allclose(ours * signs, reference, atol=1e-4)


def test_axes_are_orthonormal_and_not_whitened(pooled):
    mean, axes = principal_axes(pooled, 8)
    np.testing.assert_allclose(axes.T @ axes, np.eye(8), atol=1e-10)
    variance = ((pooled - mean) @ axes).var(axis=0)
    assert (np.diff(variance) < 0).all() and variance[-1] > 2


@pytest.mark.parametrize("whitening", [0.5, 1.0])
def test_whitening_takes_its_share_of_every_deviation(pooled, whitening):
    mean, axes = principal_axes(pooled, 8)
    deviation = ((pooled - mean) @ axes).std(axis=0)
    whitened = ((pooled - mean) @ principal_axes(pooled, 8, whitening)[1]).std(axis=0)
    np.testing.assert_allclose(whitened / whitened[0], (deviation / deviation[0]) ** (1 - whitening), rtol=1e-6)


def test_axes_of_no_variance_stay_finite():
    flat = np.repeat(np.arange(4.0)[:, None], 3, axis=1)  # one direction
    assert np.isfinite(principal_axes(flat, 3, whitening=1.0)[1]).all()


def test_axes_that_few_embeddings_cannot_tell_are_not_blown_up(pooled):
    axes = principal_axes(pooled[:10], 20, whitening=0.5)[1]  # ten embeddings span nine axes
    lengths = np.linalg.norm(axes, axis=0)
    assert (np.diff(lengths[:9]) > 0).all()
    np.testing.assert_allclose(lengths[9:], lengths[8])


@pytest.mark.parametrize(
    ("rows", "dim", "message"), [(1, 2, "at least 2"), (5, 41, "between 1 and 40"), (5, 0, "dim = 0")]
)
def test_refuses_what_has_no_covariance_or_axes(pooled, rows, dim, message):
    with pytest.raises(ValueError, match=message):
        principal_axes(pooled[:rows], dim)

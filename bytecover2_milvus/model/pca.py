"""PCA-FC: a fully connected layer that starts as the principal axes of the pooled embeddings, whitened in part.

References
----------
H. Jegou, O. Chum, "Negative evidences and co-occurences in image retrieval: The benefit of PCA and whitening", ECCV
2012: principal axes of image vectors, whitened in whole, for retrieval by cosine.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

COVARIANCE_EPS = 1e-6  # eps of the paper's Eq. 3, which keeps the covariance positive definite


def principal_axes(
    pooled: NDArray[np.floating], dim: int, whitening: float = 0.0
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and leading eigenvectors of the covariance of pooled embeddings (Eq. 3 of the paper), whitened if asked for.

    Parameters
    ----------
    pooled : np.ndarray [shape=(N, C)]
    dim : int
        Number of axes, at most C.
    whitening : float
        Share of its deviation, as a power in [0, 1], that every axis is divided by: 0, the paper's, leaves the axes
        orthonormal; 1 makes all projections equally wide. Axes that so few embeddings cannot tell, from the N-th on,
        are taken to be as wide as the last that they do.

    Returns
    -------
    mean : np.ndarray [shape=(C,)]
    axes : np.ndarray [shape=(C, dim)]
        Columns in order of falling variance, the first of unit length; the largest entry of each is positive, which
        fixes the signs.

    Raises
    ------
    ValueError
        If there are fewer than two embeddings, or fewer than `dim` columns.
    """
    n, channels = pooled.shape
    if n < 2:
        raise ValueError(f"{n} pooled embeddings: a covariance needs at least 2")
    if not 1 <= dim <= channels:
        raise ValueError(f"dim = {dim}: between 1 and {channels}")
    pooled = pooled.astype(np.float64)
    mean = pooled.mean(axis=0)
    centred = pooled - mean
    covariance = centred.T @ centred / (n - 1) + COVARIANCE_EPS * np.eye(channels)
    variances, axes = np.linalg.eigh(covariance)
    variances, axes = variances[::-1][:dim].clip(min=COVARIANCE_EPS), axes[:, ::-1][:, :dim]
    variances[n - 1 :] = variances[min(n - 1, dim) - 1]
    signs = np.sign(np.take_along_axis(axes, np.abs(axes).argmax(axis=0)[None], axis=0))
    return mean, axes * signs * (variances / variances[0]) ** (-whitening / 2)


def fit_pca(pooled: NDArray[np.floating], dim: int, whitening: float = 0.0) -> nn.Linear:
    """The PCA-FC layer (C -> dim) that projects pooled embeddings (N, C) on their `principal_axes`, centred.

    Raises
    ------
    ValueError
        As `principal_axes`.
    """
    mean, axes = principal_axes(pooled, dim, whitening)
    layer = nn.Linear(pooled.shape[1], dim)
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(axes.T))
        layer.bias.copy_(torch.from_numpy(-axes.T @ mean))
    return layer

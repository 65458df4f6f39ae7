"""Losses of embeddings: samples of one class near each other, of different classes far apart.

Outputs are features, not class scores. All pairs come from the batch; a batch without any pair
(a single sample) has loss 0.

N   samples          D   features          P   pairs of an anchor and a positive
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from dlzoo.zoo.settings import Settings
from dlzoo.zoo.train.losses.targets import require_labels, widened


class Contrastive(Settings):
    """Pulls pairs of one class together and pushes others apart, up to a margin.

    ``mean over pairs of (1 - y) d^2 / 2 + y max(0, margin - d)^2 / 2``, d the Euclidean
    distance, y = 1 where the classes differ

    Source:
        Hadsell, Chopra & LeCun 2006, "Dimensionality reduction by learning an invariant
        mapping", equation 4.

    Shape:
        Outputs [N, D] and targets int64 [N] to a scalar.

    Raises:
        ArgumentError: soft labels, or outputs that are not vectors.
    """

    name: Literal["contrastive"] = "contrastive"
    margin: float = Field(default=1.0, gt=0)
    """The distance beyond which two classes are far enough apart."""

    def __call__(self, outputs_ND: Tensor, targets_N: Tensor) -> Tensor:
        """The mean over the pairs of a batch."""
        outputs_ND = widened(outputs_ND)
        require_labels(outputs_ND, targets_N, self.name)
        first, second = torch.triu_indices(
            len(targets_N), len(targets_N), 1, device=targets_N.device
        )
        is_same = targets_N[first] == targets_N[second]
        distance = functional.pdist(outputs_ND)
        apart = (self.margin - distance).clamp_min(0)
        losses = torch.where(is_same, distance, apart).square() / 2
        return losses.sum() / max(1, losses.numel())


class Triplet(Settings):
    """Makes an anchor nearer to its own class than to any other, by a margin.

    ``mean over triplets of max(0, d(a, p) - d(a, n) + margin)``, d the Euclidean distance, p of
    the anchor's class, n of another

    Mining chooses the triplets of a batch: ``all``; ``hard``, for each anchor the farthest p
    and the nearest n; ``semi-hard``, for each (a, p) the nearest n that is farther than p, or the
    farthest n if there is none.

    Source:
        Schroff, Kalenichenko & Philbin 2015, "FaceNet", section 3.2 (semi-hard); Hermans, Beyer
        & Leibe 2017, "In defense of the triplet loss", equations 5 (hard) and 6 (all).

    Shape:
        Outputs [N, D] and targets int64 [N] to a scalar.

    Raises:
        ArgumentError: soft labels, or outputs that are not vectors.
    """

    name: Literal["triplet"] = "triplet"
    margin: float = Field(default=0.2, gt=0)
    """How much nearer."""
    mining: Literal["all", "hard", "semi-hard"] = "semi-hard"
    """Which triplets of a batch are used."""

    def __call__(self, outputs_ND: Tensor, targets_N: Tensor) -> Tensor:
        """The mean over the chosen triplets of a batch."""
        outputs_ND = widened(outputs_ND)
        require_labels(outputs_ND, targets_N, self.name)
        # With |x|^2 - 2xy + |y|^2, near pairs would lose their digits.
        distance_NN = torch.cdist(
            outputs_ND, outputs_ND, compute_mode="donot_use_mm_for_euclid_dist"
        )
        is_same_NN = targets_N[:, None] == targets_N
        is_self_NN = torch.eye(len(targets_N), dtype=torch.bool, device=targets_N.device)
        is_positive_NN = is_same_NN & ~is_self_NN
        if self.mining == "hard":
            return self._hard(distance_NN, is_positive_NN, ~is_same_NN)
        anchors_P, positives_P = is_positive_NN.nonzero(as_tuple=True)
        near_P = distance_NN[anchors_P, positives_P]
        far_PN, is_negative_PN = distance_NN[anchors_P], ~is_same_NN[anchors_P]
        if self.mining == "all":
            losses_PN = (near_P[:, None] - far_PN + self.margin).clamp_min(0)
            chosen = losses_PN[is_negative_PN]
        else:
            farther_PN = is_negative_PN & (far_PN > near_P[:, None])
            nearest_P = far_PN.masked_fill(~farther_PN, torch.inf).amin(1)
            farthest_P = far_PN.masked_fill(~is_negative_PN, -torch.inf).amax(1)
            far_P = torch.where(farther_PN.any(1), nearest_P, farthest_P)
            chosen = (near_P - far_P + self.margin).clamp_min(0)[is_negative_PN.any(1)]
        return chosen.sum() / max(1, chosen.numel())

    def _hard(
        self, distance_NN: Tensor, is_positive_NN: Tensor, is_negative_NN: Tensor
    ) -> Tensor:
        is_usable_N = is_positive_NN.any(1) & is_negative_NN.any(1)
        distance_AN = distance_NN[is_usable_N]
        if not len(distance_AN):
            return distance_NN.sum() * 0
        far_A = distance_AN.masked_fill(~is_positive_NN[is_usable_N], -torch.inf).amax(1)
        near_A = distance_AN.masked_fill(~is_negative_NN[is_usable_N], torch.inf).amin(1)
        return (far_A - near_A + self.margin).clamp_min(0).mean()

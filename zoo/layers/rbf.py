"""Output by distance between the features and the code of each class.

N   samples          K   classes          D   features
"""

from __future__ import annotations

from torch import Tensor, nn

from dlzoo.zoo.layers.layer_registry import register_layer


@register_layer(
    "rbf_output",
    kind="head",
    formula="penalty_k = sum_j (x_j - w_kj)^2; the output is -penalty_k",
    source="LeCun et al. 1998, section II.B, equation 7",
    onnx_nodes=("Unsqueeze", "Sub", "Mul", "ReduceSum", "Neg"),
    onnx="Through [N, K, D]; |x|^2 - 2xw + |w|^2 would be one Gemm, but loses digits where x is "
    "near w.",
)
class RBFOutput(nn.Module):
    """Euclidean radial basis functions, negated: the nearest code has the largest output.

    ``output_k = -sum_j (x_j - w_kj)^2``

    The paper's output is the penalty ``+sum_j (x_j - w_kj)^2``, of which the *smallest* wins:
    an unnormalized negative log-likelihood of a Gaussian around the code. Its negative is like
    the logits of every other classifier: the largest wins, and its softmax is the paper's
    posterior (equation 9 without the constant of the rubbish class).

    Source:
        LeCun et al. 1998, "Gradient-based learning applied to document recognition", section
        II.B, equation 7. The codes are chosen by hand and fixed, so they are a buffer.

    Shape:
        [N, D] to [N, K]; never positive.

    ONNX:
        Unsqueeze, Sub, Mul, ReduceSum, Neg.
    """

    #: [K, D]
    codes: Tensor

    def __init__(self, codes: Tensor) -> None:
        super().__init__()
        self.register_buffer("codes", codes)

    def forward(self, x_ND: Tensor) -> Tensor:
        """Compute the negated squared distance to each code."""
        difference_NKD = x_ND.unsqueeze(1) - self.codes
        return -(difference_NKD * difference_NKD).sum(2)

"""LeNet-5 against the numbers, the table and the figure of the paper."""

import numpy as np
import pytest
import torch

from dlzoo.errors import ArgumentError
from dlzoo.zoo.models.lenet import connection_table, digit_codes, lenet5, lenet5_relu


def parameters_by_layer(network: torch.nn.Module) -> dict[str, int]:
    counts: dict[str, int] = {}
    for key, parameter in network.named_parameters():
        layer = key.split(".")[0]
        counts[layer] = counts.get(layer, 0) + parameter.numel()
    return counts


def test_trainable_parameters_layer_by_layer() -> None:
    # Section II.B gives each of these six numbers.
    assert parameters_by_layer(lenet5()) == {
        "c1": 156,
        "s2": 12,
        "c3": 1516,
        "s4": 32,
        "c5": 48120,
        "f6": 10164,
    }


def test_textbook_form_layer_by_layer() -> None:
    assert parameters_by_layer(lenet5_relu()) == {
        "c1": 156,
        "c3": 2416,
        "c5": 48120,
        "f6": 10164,
        "output": 850,
    }


def test_connections_are_table_1() -> None:
    table = connection_table()
    assert [len(inputs) for inputs in table] == [3] * 6 + [4] * 9 + [6]
    # The first six see three neighbours, the next six four, around the ring of the six maps.
    assert [set(inputs) for inputs in table[:6]] == [
        {i % 6 for i in (j, j + 1, j + 2)} for j in range(6)
    ]
    assert [set(inputs) for inputs in table[6:12]] == [
        {i % 6 for i in (j, j + 1, j + 2, j + 3)} for j in range(6)
    ]
    assert table[12:15] == [[0, 1, 3, 4], [1, 2, 4, 5], [0, 2, 3, 5]]
    assert [sum(channel in inputs for inputs in table) for channel in range(6)] == [10] * 6


def test_maps_without_a_connection_do_not_reach_c3() -> None:
    network = lenet5().double()
    s2_NCHW = torch.randn(1, 6, 14, 14, dtype=torch.float64)
    before = network.c3(s2_NCHW)
    s2_NCHW[:, 3] += 1
    changed = (network.c3(s2_NCHW) != before).flatten(2).any(2)[0].tolist()
    assert changed == [3 in inputs for inputs in connection_table()]


def test_codes_are_ten_different_pictures_of_plus_and_minus_one() -> None:
    codes_KD = digit_codes(10)
    assert codes_KD.shape == (10, 7 * 12)
    assert set(codes_KD.unique().tolist()) == {-1.0, 1.0}
    apart = torch.cdist(codes_KD, codes_KD, p=0) + 84 * torch.eye(10)
    assert apart.min() >= 6, "two digits are told by too few pixels"


def test_codes_for_fewer_and_for_more_classes() -> None:
    assert torch.equal(digit_codes(3), digit_codes(10)[:3])
    torch.manual_seed(0)
    many_KD = digit_codes(40)
    assert torch.equal(many_KD[:10], digit_codes(10))
    assert set(many_KD.unique().tolist()) == {-1.0, 1.0}
    assert len({tuple(code) for code in many_KD.tolist()}) == 40


def test_codes_are_drawn_for_what_is_no_digit() -> None:
    torch.manual_seed(0)
    codes_KD = lenet5(codes="random").output.codes
    assert codes_KD.shape == (10, 84) and set(codes_KD.unique().tolist()) == {-1.0, 1.0}
    # Binomial(84, 1/2): 42 differ on average, and 5 standard deviations are 23.
    apart = torch.pdist(codes_KD, p=0)
    assert apart.min() > 19 and apart.max() < 65
    torch.manual_seed(1)
    assert not torch.equal(lenet5(codes="random").output.codes, codes_KD)
    with pytest.raises(ArgumentError, match='expected "digits" or "random"'):
        lenet5(codes="letters")  # type: ignore[arg-type]


def test_codes_are_held_fixed_and_saved() -> None:
    network = lenet5()
    assert "output.codes" in network.state_dict()
    assert "output.codes" not in dict(network.named_parameters())


def test_logits_are_negated_penalties_of_the_formula() -> None:
    """The whole network, written down again in NumPy."""
    torch.manual_seed(0)
    network = lenet5().double()
    v = {key: value.numpy() for key, value in network.state_dict().items()}
    rng = np.random.default_rng(0)
    image = rng.normal(size=(32, 32))

    def squash(a: np.ndarray) -> np.ndarray:
        return 1.7159 * np.tanh(a * 2 / 3)

    def correlate(x_CHW: np.ndarray, kernel_C55: np.ndarray) -> np.ndarray:
        windows = np.lib.stride_tricks.sliding_window_view(x_CHW, (5, 5), (1, 2))
        return np.einsum("chwij,cij->hw", windows, kernel_C55)

    def subsample(x_CHW: np.ndarray, layer: str) -> np.ndarray:
        channels, height, width = x_CHW.shape
        sums = x_CHW.reshape(channels, height // 2, 2, width // 2, 2).sum((2, 4))
        coefficient, bias = v[f"{layer}.coefficient"], v[f"{layer}.bias"]
        return coefficient[:, None, None] * sums + bias[:, None, None]

    c1 = squash(
        np.stack([correlate(image[None], w) for w in v["c1.weight"]])
        + v["c1.bias"][:, None, None]
    )
    s2 = squash(subsample(c1, "s2"))
    maps, pair = [], 0
    for o, inputs in enumerate(connection_table()):
        kernels = v["c3.weight"][pair : pair + len(inputs)]
        maps.append(correlate(s2[inputs], kernels) + v["c3.bias"][o])
        pair += len(inputs)
    s4 = squash(subsample(squash(np.stack(maps)), "s4"))
    c5 = squash(np.einsum("cij,ocij->o", s4, v["c5.weight"]) + v["c5.bias"])
    f6 = squash(v["f6.weight"] @ c5 + v["f6.bias"])
    penalty = ((f6 - v["output.codes"]) ** 2).sum(1)

    with torch.no_grad():
        logits_NK = network(torch.from_numpy(image)[None, None])
    assert np.abs(logits_NK[0].numpy() + penalty).max() < 1e-11 * penalty.max()


@pytest.mark.parametrize("builder", [lenet5, lenet5_relu])
def test_color_images_and_other_classes(builder: torch.nn.Module) -> None:
    network = builder(num_channels=3, num_classes=4)
    assert network(torch.zeros(2, 3, 32, 32)).shape == (2, 4)

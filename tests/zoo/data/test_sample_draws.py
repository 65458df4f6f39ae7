"""Draws of a sample: a function of seed, epoch, index and stream, and of good quality."""

import math
import subprocess
import sys
from random import Random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from dlzoo.zoo.data.sample_draws import SampleDraws

#: A test of a true hypothesis fails with this probability, were the seed not fixed.
SIGNIFICANCE = 1e-4

indices_of_a_batch = st.lists(st.integers(0, 10**7), min_size=1, max_size=40)


def every_draw(draws: SampleDraws) -> list[torch.Tensor]:
    return [
        draws.uniform("a", -2.0, 3.0),
        draws.uniform("a", shape=(2, 3)),
        draws.normal("a", 1.0, 2.0, shape=(7,)),
        draws.integers("a", 3, 20),
        draws.integers("a", torch.zeros(len(draws)), draws.indices + 2),
        draws.bernoulli("a", 0.4),
        draws.beta("a", 0.2, 0.2),
        draws.beta("a", 3.0, 1.5),
    ]


@settings(deadline=None)
@given(indices_of_a_batch, st.integers(0, 2**64 - 1), st.integers(0, 10**6), st.randoms())
def test_neither_the_batch_nor_the_order_matters(
    indices: list[int], seed: int, epoch: int, random: Random
) -> None:
    together = every_draw(SampleDraws(seed, epoch, indices))
    places = list(range(len(indices)))
    random.shuffle(places)
    places = places[: random.randint(1, len(places))]
    part = every_draw(SampleDraws(seed, epoch, [indices[p] for p in places]))
    selected = every_draw(SampleDraws(seed, epoch, indices).select(torch.tensor(places)))
    for whole, some, again in zip(together, part, selected, strict=True):
        assert torch.equal(whole[places], some)
        assert torch.equal(whole[places], again)


def test_another_process_and_another_number_of_threads_draw_the_same() -> None:
    program = (
        "import torch; torch.set_num_threads(3); torch.manual_seed(5)\n"
        "from dlzoo.zoo.data.sample_draws import SampleDraws\n"
        "draws = SampleDraws(1, 2, [8, 9])\n"
        "print([draws.uniform('a').tolist(), draws.normal('b', shape=(3,)).tolist(),"
        " draws.beta('c', 0.5, 0.5).tolist()])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    )
    draws = SampleDraws(1, 2, [8, 9])
    here = [draws.uniform("a"), draws.normal("b", shape=(3,)), draws.beta("c", 0.5, 0.5)]
    assert done.stdout.strip() == str([values.tolist() for values in here])


def test_bits_are_splitmix64() -> None:
    # Written out in Python's integers.
    mask = 2**64 - 1

    def mix(z: int) -> int:
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
        return z ^ (z >> 31)

    import hashlib

    stream = int.from_bytes(hashlib.blake2b(b"a", digest_size=8).digest(), "little")
    key = 0x9E3779B97F4A7C15
    for word in (11, 22, stream, 33):
        key = mix(key ^ word)
    for j, drawn in enumerate(SampleDraws(11, 22, [33]).uniform("a", shape=(3,))[0]):
        bits = mix((key + (j + 1) * 0x9E3779B97F4A7C15) & mask)
        assert drawn.item() == np.float32(((bits >> 12) + 0.5) / 2**52)


def test_each_part_of_the_name_changes_every_draw() -> None:
    indices = range(200)
    base = SampleDraws(0, 0, indices)
    others = [
        SampleDraws(1, 0, indices).uniform("a"),
        SampleDraws(0, 1, indices).uniform("a"),
        SampleDraws(0, 0, range(200, 400)).uniform("a"),
        base.uniform("b"),
        base.scoped("crop").uniform("a"),
    ]
    for drawn in others:
        assert (drawn != base.uniform("a")).float().mean() > 0.99
    assert torch.equal(base.scoped("x").scoped("y").uniform("a"), base.uniform("x/y/a"))


@pytest.mark.parametrize("seed", [0, 1, 2**63])
def test_uniform_over_samples_epochs_and_counters(seed: int) -> None:
    sets = {
        "samples": SampleDraws(seed, 0, range(100_000)).uniform("a"),
        "epochs": torch.cat(
            [SampleDraws(seed, e, range(10)).uniform("a") for e in range(2000)]
        ),
        "counter": SampleDraws(seed, 0, range(4)).uniform("a", shape=(25_000,)).flatten(),
        "streams": torch.cat(
            [SampleDraws(seed, 0, range(10)).uniform(str(s)) for s in range(2000)]
        ),
    }
    for name, drawn in sets.items():
        counts = np.bincount((drawn.numpy() * 256).astype(int), minlength=256)
        assert stats.chisquare(counts).pvalue > SIGNIFICANCE, name


def test_streams_samples_and_epochs_are_independent() -> None:
    count = 50_000
    base = SampleDraws(0, 0, range(count))
    x = base.uniform("a")
    neighbours = {
        "stream": base.uniform("b"),
        "epoch": SampleDraws(0, 1, range(count)).uniform("a"),
        "seed": SampleDraws(1, 0, range(count)).uniform("a"),
        "next sample": SampleDraws(0, 0, range(1, count + 1)).uniform("a"),
        "next draw": base.uniform("a", shape=(2,))[:, 1],
    }
    for name, y in neighbours.items():
        # Pairs fall evenly into 16 x 16 cells: any dependence shows, not only correlation.
        cells = (x * 16).long() * 16 + (y * 16).long()
        counts = np.bincount(cells.numpy(), minlength=256)
        assert stats.chisquare(counts).pvalue > SIGNIFICANCE, name


def test_distributions() -> None:
    draws = SampleDraws(4, 0, range(40_000))
    for drawn, law in (
        (draws.normal("n", 2.0, 3.0), stats.norm(2.0, 3.0)),
        (draws.normal("m", shape=(3,))[:, 2], stats.norm()),
        (draws.uniform("u", -1.0, 5.0), stats.uniform(-1.0, 6.0)),
        (draws.beta("b", 1.0, 1.0), stats.uniform()),
        (draws.beta("b", 4.0, 1.5), stats.beta(4.0, 1.5)),
    ):
        assert stats.kstest(drawn.double().numpy(), law.cdf).pvalue > SIGNIFICANCE
    # float32 rounds 1.6 % of these to 1, where the law has no atom: look at the lower half.
    drawn = draws.beta("b", 0.2, 0.2).double().numpy()
    lower = drawn[drawn < 0.5]
    assert stats.kstest(lower, lambda x: 2 * stats.beta(0.2, 0.2).cdf(x)).pvalue > SIGNIFICANCE
    assert stats.binomtest(len(lower), len(drawn)).pvalue > SIGNIFICANCE
    assert abs(draws.bernoulli("c", 0.3).float().mean().item() - 0.3) < 6 * math.sqrt(
        0.21 / 40_000
    )
    counts = np.bincount(draws.integers("i", -3, 4).numpy() + 3)
    assert len(counts) == 7 and stats.chisquare(counts).pvalue > SIGNIFICANCE


def test_the_two_normals_of_a_pair_are_independent() -> None:
    pair = SampleDraws(0, 0, range(50_000)).normal("n", shape=(2,)).double()
    cells = torch.special.ndtr(pair).mul(16).long()
    counts = np.bincount((cells[:, 0] * 16 + cells[:, 1]).numpy(), minlength=256)
    assert stats.chisquare(counts).pvalue > SIGNIFICANCE


def test_bounds() -> None:
    draws = SampleDraws(0, 0, range(20_000))
    assert draws.bernoulli("a", 1.0).all() and not draws.bernoulli("a", 0.0).any()
    unit = draws.uniform("a")
    assert unit.min() >= 0 and unit.max() <= 1
    # Shapes so small that both gamma variables underflow.
    extreme = draws.beta("a", 1e-3, 1e-3)
    assert extreme.isfinite().all() and 0.4 < extreme.mean() < 0.6
    assert draws.integers("a", 5, 6).unique().tolist() == [5]
    assert draws.normal("a").abs().max() < 6.8


@settings(deadline=None)
@given(st.lists(st.integers(0, 1000), min_size=1, max_size=30, unique=True), st.randoms())
def test_partners_are_others_whatever_the_order(indices: list[int], random: Random) -> None:
    def by_index(order: list[int]) -> dict[int, list[int]]:
        partners = SampleDraws(0, 0, order).partners("p", 3)
        return {i: [order[p] for p in row] for i, row in zip(order, partners, strict=True)}

    first = by_index(indices)
    assert by_index(random.sample(indices, len(indices))) == first
    if len(indices) > 3:
        assert all(len({index, *partners}) == 4 for index, partners in first.items())
    # Everyone is the first partner of one sample.
    assert sorted(row[0] for row in first.values()) == sorted(indices)


def test_permutations_are_uniform() -> None:
    orders = [
        tuple(SampleDraws(0, e, range(4)).permutation("p").tolist()) for e in range(6000)
    ]
    assert all(sorted(order) == [0, 1, 2, 3] for order in orders)
    counts = [orders.count(order) for order in set(orders)]
    assert len(counts) == 24 and stats.chisquare(counts).pvalue > SIGNIFICANCE


def test_an_empty_batch() -> None:
    draws = SampleDraws(0, 0, [])
    assert [len(drawn) for drawn in every_draw(draws)] == [0] * 8
    assert draws.partners("p", 3).shape == (0, 3)

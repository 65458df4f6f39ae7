"""Random numbers that depend on the sample, not on the batch or process that reads it.

Shape legend: N samples of a batch.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

_Words = npt.NDArray[np.uint64]

#: 2^64 divided by the golden ratio, odd: SplitMix64's step.
_GOLDEN = 0x9E3779B97F4A7C15
#: Cycles of rejection after which something other than chance is wrong: each cycle accepts more
#: than 95 % (Marsaglia & Tsang 2000), so 60 leave fewer than one in 10^78.
_MAX_ATTEMPTS = 60


class SampleDraws:
    """Draws for the samples of a batch, each a function of seed, epoch, stream and index.

    ``bits(seed, epoch, stream, index, j) = mix(key + (j + 1) * golden)`` modulo 2^64, where
    ``key`` absorbs seed, epoch, the stream's name (hashed) and the sample's index, one after the
    other, by ``key <- mix(key xor word)``; j counts a sample's draws in a stream. There is no
    state: the rest of the batch, the sample's place in it, the worker, the rank and the number of
    threads have no effect, and drawing a stream again gives the same numbers.

    **Source**: Steele, Lea and Flood 2014, "Fast Splittable Pseudorandom Number Generators"
    (SplitMix64: the counter's step and ``mix``); Salmon et al. 2011, "Parallel Random Numbers:
    As Easy as 1, 2, 3" (draws as a function of a counter).

    >>> alone = SampleDraws(seed=0, epoch=3, indices=[41])
    >>> among_others = SampleDraws(seed=0, epoch=3, indices=[7, 41, 5])
    >>> bool(alone.uniform("angle")[0] == among_others.uniform("angle")[1])
    True
    """

    def __init__(
        self, seed: int, epoch: int, indices: Sequence[int] | Tensor, *, scope: str = ""
    ) -> None:
        """Set the samples to draw for.

        Args:
            seed: the run's seed, modulo 2^64.
            epoch: from 0.
            indices: the samples' positions in the data set, whole numbers from 0.
            scope: prefix of the name of every stream.
        """
        self.seed = seed
        self.epoch = epoch
        self.indices = torch.as_tensor(indices, dtype=torch.int64).reshape(-1)
        self._scope = scope

    def __len__(self) -> int:
        return len(self.indices)

    def scoped(self, name: str) -> SampleDraws:
        """The same samples with separate streams."""
        return SampleDraws(self.seed, self.epoch, self.indices, scope=f"{self._scope}{name}/")

    def select(self, positions: Tensor) -> SampleDraws:
        """The samples at these positions of the batch, with the same draws."""
        return SampleDraws(self.seed, self.epoch, self.indices[positions], scope=self._scope)

    # -- independent draws -----------------------------------------------------------------------

    def uniform(
        self, stream: str, low: float = 0.0, high: float = 1.0, shape: tuple[int, ...] = ()
    ) -> Tensor:
        """Float32 [N, *shape], uniform over [low, high]."""
        unit = self._unit(stream, math.prod(shape))
        return self._shaped(low + (high - low) * unit, shape)

    def normal(
        self, stream: str, mean: float = 0.0, std: float = 1.0, shape: tuple[int, ...] = ()
    ) -> Tensor:
        """Float32 [N, *shape], normal; at most 6.8 standard deviations from the mean.

        ``sqrt(-2 ln u) cos(2 pi v)`` and ``sqrt(-2 ln u) sin(2 pi v)`` from two 32-bit uniform
        numbers.

        **Source**: Box and Muller 1958, "A Note on the Generation of Random Normal Deviates".
        """
        count = math.prod(shape)
        words = self._words(stream, -(-count // 2))
        # float32 throughout: the result has its 24 bits, and it is twice as fast.
        u = ((words >> np.uint64(32)).astype(np.float32) + np.float32(0.5)) * np.float32(
            2**-32
        )
        v = (words & np.uint64(0xFFFFFFFF)).astype(np.float32) * np.float32(2**-32)
        radius = np.sqrt(np.float32(-2.0) * np.log(u)) * np.float32(std)
        angle = v * np.float32(2 * math.pi)
        pair = np.concatenate([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
        return self._shaped(pair[:, :count] + np.float32(mean), shape)

    def integers(
        self,
        stream: str,
        low: int | Tensor,
        high: int | Tensor,
        shape: tuple[int, ...] = (),
    ) -> Tensor:
        """Int64 [N, *shape], uniform over low … high - 1; the bounds may differ by sample [N]."""
        first, stop = (
            np.reshape(bound.numpy() if isinstance(bound, Tensor) else bound, (-1, 1))
            for bound in (low, high)
        )
        drawn = first + np.floor((stop - first) * self._unit(stream, math.prod(shape)))
        return torch.from_numpy(drawn.astype(np.int64)).reshape(-1, *shape)

    def bernoulli(self, stream: str, probability: float) -> Tensor:
        """Bool [N], true with the given probability; never for 0, always for 1."""
        return torch.from_numpy(self._unit(stream, 1)[:, 0] < probability)

    def beta(self, stream: str, alpha: float, beta: float) -> Tensor:
        """Float32 [N], distributed as Beta(alpha, beta).

        ``G_a / (G_a + G_b)`` with gamma variables of shape a and b, as logarithms, because both
        underflow for small alpha.

        **Source**: Devroye 1986, "Non-Uniform Random Variate Generation", theorem IX.4.1.
        """
        difference = self._log_gamma_variable(f"{stream}/a", alpha)
        difference -= self._log_gamma_variable(f"{stream}/b", beta)
        with np.errstate(over="ignore"):  # exp(-difference) may be Inf: 1 / Inf = 0
            return self._shaped(1.0 / (1.0 + np.exp(-difference))[:, np.newaxis], ())

    # -- draws for the whole batch ---------------------------------------------------------------

    def permutation(self, stream: str) -> Tensor:
        """Int64 [N]: the batch's positions in random order.

        The order of two samples depends only on one draw of each, not on the other samples or on
        their positions in the batch.
        """
        keys = self._words(stream, 1)[:, 0]
        return torch.from_numpy(np.argsort(keys, kind="stable"))

    def partners(self, stream: str, count: int) -> Tensor:
        """Int64 [N, count]: positions of other samples for each sample.

        Sample p of a random circular order gets p + 1, p + 2, …: no sample is its own partner, and
        no partner comes twice, if the batch has more than ``count`` samples.
        """
        order = self.permutation(stream)
        place = torch.empty_like(order)
        place[order] = torch.arange(len(order))
        return order[(place[:, None] + torch.arange(1, count + 1)) % max(len(order), 1)]

    # -- bits --------------------------------------------------------------------------------

    def _words(self, stream: str, count: int) -> _Words:
        """``count`` times 64 random bits for each sample: [N, count]."""
        digest = hashlib.blake2b(f"{self._scope}{stream}".encode(), digest_size=8).digest()
        key = np.array([_GOLDEN], np.uint64)
        for word in (self.seed, self.epoch, int.from_bytes(digest, "little")):
            key = _mix(key ^ np.uint64(word % 2**64))
        keys = _mix(key ^ self.indices.numpy().astype(np.uint64))
        counters = np.arange(1, count + 1, dtype=np.uint64) * np.uint64(_GOLDEN)
        return _mix(keys[:, np.newaxis] + counters)

    def _unit(self, stream: str, count: int) -> npt.NDArray[np.float64]:
        """(k + 1/2) / 2^52 with k of 52 bits, exactly: [N, count], above 0 and below 1."""
        k = (self._words(stream, count) >> np.uint64(12)).astype(np.float64)
        return (k + 0.5) * 2.0**-52

    def _log_gamma_variable(self, stream: str, shape: float) -> npt.NDArray[np.float64]:
        """Logarithms of gamma variables, [N].

        **Source**: Marsaglia and Tsang 2000, "A Simple Method for Generating Gamma Variables":
        with ``d = a - 1/3``, ``v = (1 + x / sqrt(9 d))^3``, x normal and u uniform, ``d v`` is
        accepted if ``ln u < x^2 / 2 + d - d v + d ln v``; a is the shape plus one, which the
        factor ``u^(1 / shape)`` compensates (their section 6).
        """
        d = shape + 1 - 1 / 3
        accepted = np.full(len(self), np.nan)
        for attempt in range(_MAX_ATTEMPTS):
            x = self.normal(f"{stream}/{attempt}/x").double().numpy()
            u = self._unit(f"{stream}/{attempt}/u", 1)[:, 0]
            root = np.maximum(1 + x / math.sqrt(9 * d), 0)
            with np.errstate(divide="ignore"):  # ln 0 = -Inf is never accepted
                log_v = 3 * np.log(root)
            is_good = np.log(u) < x**2 / 2 + d - d * root**3 + d * log_v
            accepted = np.where(np.isnan(accepted) & is_good, math.log(d) + log_v, accepted)
            if not np.isnan(accepted).any():
                break
        return accepted + np.log(self._unit(f"{stream}/root", 1)[:, 0]) / shape

    def _shaped(self, values: npt.NDArray[np.floating], shape: tuple[int, ...]) -> Tensor:
        return torch.from_numpy(values.astype(np.float32, copy=False)).reshape(
            len(self), *shape
        )


def _mix(words: _Words) -> _Words:
    """SplitMix64's finalizer: every input bit changes every output bit with probability 1/2."""
    mixed = words ^ (words >> np.uint64(30))
    mixed *= np.uint64(0xBF58476D1CE4E5B9)
    mixed ^= mixed >> np.uint64(27)
    mixed *= np.uint64(0x94D049BB133111EB)
    mixed ^= mixed >> np.uint64(31)
    return mixed

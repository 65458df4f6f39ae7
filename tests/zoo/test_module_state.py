"""What a forward writes is found by name and put back, whatever it writes into."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dlzoo.zoo.module_state import Changes, in_float64, state_restored
from tests.support.exported_answers import export_and_compare


class Counter:
    """State that a network keeps in an object of its own."""

    def __init__(self) -> None:
        self.calls = 0
        self.lock = threading.Lock()


class Net(nn.Module):
    """A convolution, and places of every kind that a forward could write into."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 4, 3)
        self.register_buffer("ema", torch.ones(4))
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        self.register_buffer("hidden", torch.ones(4), persistent=False)
        self.plain = torch.ones(4)
        self.count = 0
        self.seen: list[Tensor] = []
        self.recent: deque[int] = deque(maxlen=3)
        self.table: dict[str, list[Tensor]] = {"means": []}
        self.array = np.ones(4, np.float32)
        self.cache: Tensor | None = None
        self.state = Counter()


def scaled(y: Tensor, scale: Tensor) -> Tensor:
    return y * scale[:, None, None]


def writes_input(net: Net, x: Tensor) -> Tensor:
    return net.conv(x.mul_(2))


def writes_part_of_input(net: Net, x: Tensor) -> Tensor:
    x[:, 0] = 0
    return net.conv(F.relu_(x))


def writes_buffer(net: Net, x: Tensor) -> Tensor:
    y = net.conv(x)
    net.ema.mul_(0.9).add_(y.mean((0, 2, 3)), alpha=0.1)
    return scaled(y, net.ema)


def writes_part_of_buffer(net: Net, x: Tensor) -> Tensor:
    net.ema[1:3] += 4
    return scaled(net.conv(x), net.ema)


def counts_in_buffer(net: Net, x: Tensor) -> Tensor:
    net.steps += 1
    return net.conv(x) * net.steps


def assigns_buffer(net: Net, x: Tensor) -> Tensor:
    net.hidden = net.hidden * 0.5
    return scaled(net.conv(x), net.hidden)


def writes_data(net: Net, x: Tensor) -> Tensor:
    net.ema.data.mul_(3)
    return scaled(net.conv(x), net.ema)


def assigns_data(net: Net, x: Tensor) -> Tensor:
    net.ema.data = net.ema * 3
    return scaled(net.conv(x), net.ema)


def writes_parameter(net: Net, x: Tensor) -> Tensor:
    with torch.no_grad():
        net.conv.weight.clamp_(-0.1, 0.1)
    return net.conv(x)


def writes_parameter_data(net: Net, x: Tensor) -> Tensor:
    net.conv.weight.data.clamp_(-0.1, 0.1)
    return net.conv(x)


def writes_attribute(net: Net, x: Tensor) -> Tensor:
    net.plain.mul_(2)
    return scaled(net.conv(x), net.plain)


def assigns_attribute(net: Net, x: Tensor) -> Tensor:
    net.plain = net.plain * 2
    return scaled(net.conv(x), net.plain)


def counts_in_attribute(net: Net, x: Tensor) -> Tensor:
    net.count += 1
    return net.conv(x) * net.count


def appends(net: Net, x: Tensor) -> Tensor:
    y = net.conv(x)
    net.seen.append(y)
    net.recent.append(1)
    return y * len(net.seen) * len(net.recent)


def appends_deep_inside(net: Net, x: Tensor) -> Tensor:
    y = net.conv(x)
    net.table["means"].append(y.mean())
    return y * len(net.table["means"])


def counts_in_object(net: Net, x: Tensor) -> Tensor:
    net.state.calls += 1
    return net.conv(x) * net.state.calls


def writes_array(net: Net, x: Tensor) -> Tensor:
    net.array[0] += 1
    return net.conv(x) * float(net.array[0])


def fills_cache(net: Net, x: Tensor) -> Tensor:
    y = net.conv(x)
    if net.cache is None:
        net.cache = y.mean()
    net.last = y
    return y * net.cache


def gives_buffer(net: Net, x: Tensor) -> tuple[Tensor, Tensor]:
    net.steps.add_(1)
    return net.conv(x), net.steps


CASES: list[tuple[Callable[..., object], str]] = [
    (writes_input, "forward changes its input 'x'"),
    (writes_part_of_input, "forward changes its input 'x'"),
    (writes_buffer, "forward changes buffer 'ema'"),
    (writes_part_of_buffer, "forward changes buffer 'ema'"),
    (counts_in_buffer, "forward changes buffer 'steps'"),
    (assigns_buffer, "forward changes buffer 'hidden'"),
    (writes_data, "forward changes buffer 'ema'"),
    (assigns_data, "forward changes buffer 'ema'"),
    (writes_parameter, "forward changes parameter 'conv.weight'"),
    (writes_parameter_data, "forward changes parameter 'conv.weight'"),
    (writes_attribute, "forward changes attribute 'plain'"),
    (assigns_attribute, "forward changes attribute 'plain'"),
    (counts_in_attribute, "forward changes attribute 'count'"),
    (appends, "forward changes attribute 'seen', 'recent'"),
    (appends_deep_inside, "forward changes attribute 'table.means'"),
    (counts_in_object, "forward changes attribute 'state.calls'"),
    (writes_array, "forward changes attribute 'array'"),
    (fills_cache, ""),
    (gives_buffer, "forward changes buffer 'steps'"),
]


def contents(net: Net) -> tuple[object, ...]:
    return (
        {key: value.tolist() for key, value in net.state_dict().items()},
        net.hidden.tolist(),
        net.plain.tolist(),
        (net.count, len(net.seen), len(net.recent), len(net.table["means"])),
        (net.array.tolist(), net.cache, net.state.calls, hasattr(net, "last")),
        [id(t) for t in (*net.parameters(), *net.buffers(), net.plain)],
    )


@pytest.mark.parametrize(("forward", "note"), CASES, ids=lambda x: getattr(x, "__name__", ""))
def test_a_forward_that_writes_exports_and_is_named(
    forward: Callable[..., object], note: str, tmp_path: Path
) -> None:
    net = type("Written", (Net,), {"forward": forward})().eval()
    before = contents(net)
    notes = export_and_compare(net, tmp_path).notes
    assert contents(net) == before
    said = [text for text in notes if text.startswith("forward changes")]
    assert [text.split(":")[0] for text in said] == ([note] if note else [])
    assert not [text for text in notes if "register_buffer" in text]


def test_what_a_run_changed_is_put_back_and_named_once() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("a", torch.zeros(3))
            self.view = self.a[1:]

    net, changes = Twice(), Changes()
    with state_restored(net, changes):
        net.view.add_(1)
        torch._foreach_add_([net.a], 1.0)
        torch.ones(3, out=net.a)
    assert net.a.tolist() == [0, 0, 0]
    assert (changes.buffers, changes.attributes) == (["a"], ["view"])
    with state_restored(net, unchanged := Changes()):
        _ = net.a + 1
    assert not unchanged


def test_a_network_is_put_back_when_its_forward_fails() -> None:
    norm = nn.BatchNorm2d(2)
    with pytest.raises(ZeroDivisionError), state_restored(norm):
        norm(torch.randn(2, 2, 3, 3))
        raise ZeroDivisionError
    assert norm.running_mean is not None and norm.num_batches_tracked is not None
    assert norm.running_mean.tolist() == [0, 0] and int(norm.num_batches_tracked) == 0


def test_float64_and_back_without_a_copy_that_could_fail() -> None:
    """A network with a lock and a computed weight cannot be copied by deepcopy."""
    net = Net()
    net.computed = net.conv.weight * 2  # of a graph: deepcopy refuses it
    addresses = [p.data_ptr() for p in net.parameters()]
    with in_float64(net):
        held = (net.conv.weight, net.ema, net.plain, net.computed)
        assert {t.dtype for t in held} == {torch.float64}
        assert net.steps.dtype == torch.int64
    assert net.plain.dtype == net.conv.weight.dtype == torch.float32
    assert [p.data_ptr() for p in net.parameters()] == addresses

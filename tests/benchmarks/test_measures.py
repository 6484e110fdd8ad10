"""The benchmarks' measures on computations whose cost is known."""

import itertools
import sys
from pathlib import Path

import pytest
import torch

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

from cost import Call, Ceiling, Counter
from memory import peak_bytes, saved_bytes
from timing import interleaved


def calls(function):
    with Counter() as counter:
        function()
    return counter.calls


def test_bytes_and_operations_of_known_operators():
    a, b, row = torch.randn(3, 5), torch.randn(5, 7), torch.randn(1, 7)
    product, total = calls(lambda: (a @ b) + row.expand(3, 7))
    assert product == Call("aten::mm", 2 * 3 * 5 * 7, 4 * (15 + 35 + 21))
    assert total == Call("aten::add", 0, 4 * (21 + 7 + 21))  # the expanded row lies in memory once
    assert calls(lambda: a.flatten()[3:].view(4, 3).t()[None]) == []  # views
    (inplace,) = calls(lambda: a.mul_(2.0))
    assert inplace.bytes == 2 * 4 * 15


@pytest.mark.parametrize("groups", [1, 8])
@pytest.mark.parametrize("kind", [torch.nn.Conv2d, torch.nn.ConvTranspose2d])
def test_backward_of_a_convolution_is_twice_its_forward(kind, groups):
    convolution, x = kind(8, 16, 3, groups=groups), torch.randn(2, 8, 10, 10, requires_grad=True)
    forward = sum(call.flops for call in calls(lambda: convolution(x)))
    both = sum(call.flops for call in calls(lambda: convolution(x).sum().backward()))
    assert forward > 0 and both == 3 * forward


def test_attention_is_counted():
    q = torch.randn(1, 1, 6, 4, requires_grad=True)
    found = calls(lambda: torch.nn.functional.scaled_dot_product_attention(q, q, q).sum().backward())
    assert sum(call.flops for call in found) == 2 * 6 * 6 * 4 * (2 + 5)  # 2 products forward, 5 backward


def test_roofline_takes_the_longer_of_both():
    ceiling = Ceiling(flops_per_s=100.0, bytes_per_s=10.0)
    assert ceiling.bound([Call("a", 200, 1), Call("b", 0, 30)]) == pytest.approx(2 + 3)


def test_peak_of_known_allocations():
    def run():
        a = torch.empty(1000, 1000)
        b = a + 1
        del a
        return b * 2  # b and its double: never more than two at once

    assert 8_000_000 <= peak_bytes(run, "cpu") < 8_001_000


def test_saved_of_a_known_product():
    weight, x = torch.randn(4, 4, requires_grad=True), torch.randn(100, 4)
    assert saved_bytes(lambda: torch.exp(x @ weight), [weight]) == 2 * 4 * 400  # x, and the exponential


def test_turns_alternate():
    order = []
    times = interleaved({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, 3, "cpu")
    changes = sum(x != y for x, y in itertools.pairwise(order))
    assert changes == 2 * 4 - 1  # one warm-up and three turns of two sides
    assert all(t["q1_s"] <= t["median_s"] <= t["q3_s"] for t in times.values())

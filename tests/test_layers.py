"""Layers that train quicker than PyTorch's compute what PyTorch's do."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from smartgrid_ai.forecast.layers import GRU, Dropout

RATES = (0.001, 0.05, 0.15, 0.5, 0.9)


def of_both(reader: GRU, inputs: torch.Tensor, start: torch.Tensor | None) -> list:
    "Answers and gradients of our way and of PyTorch's with the same weights."
    parts = [inputs, *reader.parameters(), *([] if start is None else [start])]
    found = []
    for forward in (GRU.forward, nn.GRU.forward):
        states, last = forward(reader, inputs, start)
        wanted = (states.sin() * torch.arange(states.shape[1])[:, None]).sum() + last.square().sum()
        found.append((states, last, *torch.autograd.grad(wanted, parts)))
    return found


@settings(deadline=None, max_examples=40)
@given(
    batch=st.integers(1, 4),
    hours=st.integers(1, 9),
    layers=st.integers(1, 3),
    both_ways=st.booleans(),
    begun=st.booleans(),
    seed=st.integers(0, 2**16),
)
def test_gru_has_the_states_and_gradients_of_torch(batch, hours, layers, both_ways, begun, seed):
    torch.manual_seed(seed)
    reader = GRU(3, 5, layers, bidirectional=both_ways).double().train()
    inputs = torch.randn(batch, hours, 3, dtype=torch.double, requires_grad=True)
    start = None
    if begun:
        first = (layers * (1 + both_ways), batch, 5)
        start = torch.randn(first, dtype=torch.double, requires_grad=True)
    ours, theirs = of_both(reader, inputs, start)
    for our, their in zip(ours, theirs, strict=True):
        torch.testing.assert_close(our, their)


def test_gru_passes_the_numerical_check_of_gradients():
    torch.manual_seed(0)
    reader = GRU(2, 3).double().train()
    inputs = torch.randn(2, 4, 2, dtype=torch.double, requires_grad=True)
    assert torch.autograd.gradcheck(lambda given: reader(given)[0], inputs)


def test_gru_reads_what_torch_saved():
    "Bundles written with PyTorch's layer load into ours and the other way round."
    plain, ours = nn.GRU(3, 4, 2, batch_first=True), GRU(3, 4, 2)
    ours.load_state_dict(plain.state_dict())
    plain.load_state_dict(ours.state_dict())
    inputs = torch.randn(2, 6, 3)
    torch.testing.assert_close(ours.eval()(inputs), plain(inputs))
    torch.testing.assert_close(ours.train()(inputs), plain(inputs))


def test_gru_drops_between_layers_in_training_only():
    reader, inputs = GRU(3, 8, 2, dropout=0.5), torch.randn(2, 6, 3)
    reader.train()
    assert not torch.equal(reader(inputs)[0], reader(inputs)[0])
    reader.eval()
    assert torch.equal(reader(inputs)[0], reader(inputs)[0])


@pytest.mark.parametrize("rate", RATES)
def test_dropout_keeps_the_rate_and_the_mean(rate):
    torch.manual_seed(1)
    values = Dropout(rate)(torch.ones(500, 401))
    deviation = np.sqrt(rate * (1 - rate) / values.numel())
    assert abs(float((values == 0).double().mean()) - rate) < 5 * deviation + 1 / 2**16
    assert float(values.max()) == pytest.approx(1 / (1 - rate), rel=1e-3)


@settings(deadline=None, max_examples=30)
@given(shape=st.lists(st.integers(1, 7), max_size=4), rate=st.sampled_from(RATES))
def test_dropout_takes_any_shape_and_passes_gradients_where_values_pass(shape, rate):
    values = torch.ones(shape, requires_grad=True)
    dropped = Dropout(rate)(values)
    dropped.sum().backward()
    assert dropped.shape == values.shape
    assert torch.equal(values.grad, dropped.detach())


def test_dropout_draws_anew_each_time_and_the_same_from_the_same_seed():
    dropout, values = Dropout(0.3), torch.ones(1000)
    torch.manual_seed(5)
    first, second = dropout(values), dropout(values)
    torch.manual_seed(5)
    assert not torch.equal(first, second)
    assert torch.equal(first, dropout(values))


def test_values_next_to_each_other_are_dropped_independently():
    torch.manual_seed(2)
    dropped = (Dropout(0.5)(torch.ones(400_000)) == 0).double()
    for lag in (1, 2, 3, 4, 5):
        both = float((dropped[lag:] * dropped[:-lag]).mean())
        assert abs(both - 0.25) < 0.005


@pytest.mark.parametrize(("rate", "left"), [(0.0, 1.0), (1.0, 0.0)])
def test_all_or_nothing(rate, left):
    assert torch.equal(Dropout(rate)(torch.ones(50)), torch.full((50,), left))
    assert torch.equal(Dropout(rate).eval()(torch.ones(50)), torch.ones(50))

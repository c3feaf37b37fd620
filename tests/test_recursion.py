"""The recursion equals its hand-unrolled form, and gradient reaches only its last part."""

import pytest
import torch
from torch import nn

from trmlib.recursion import deep_recursion, latent_recursion, refine


class Net(nn.Module):
    """net(x, y, z) updates z, net(y, z) updates y: one small net for both, as in the paper."""

    def __init__(self, d=6):
        super().__init__()
        torch.manual_seed(0)
        self.linear = nn.Linear(d, d)
        self.calls = 0

    def forward(self, *states):
        self.calls += 1
        return torch.tanh(self.linear(sum(states)))


@pytest.fixture
def net():
    return Net()


@pytest.fixture
def xyz():
    g = torch.Generator().manual_seed(1)
    return [torch.randn(2, 3, 6, generator=g) for _ in range(3)]


def unrolled(net, x, y, z, n, T, cut):
    """T recursions written out; the states are detached before recursion number `cut` (None: never)."""
    for t in range(T):
        if t == cut:
            y, z = y.detach(), z.detach()
        for _ in range(n):
            z = net(x, y, z)
        y = net(y, z)
    return y, z


def gradients(net, y, z):
    net.zero_grad()
    (y.square().sum() + z.sum()).backward()
    return [p.grad.clone() for p in net.parameters()]


def test_latent_recursion_is_three_z_updates_then_one_y_update(net, xyz):
    x, y, z = xyz
    z1 = net(x, y, z)
    z2 = net(x, y, z1)
    z3 = net(x, y, z2)
    y1 = net(y, z3)
    net.calls = 0
    got_y, got_z = latent_recursion(net, x, y, z, n=3)
    assert net.calls == 4
    assert torch.equal(got_y, y1) and torch.equal(got_z, z3)


def test_no_latent_updates_leave_z(net, xyz):
    x, y, z = xyz
    got_y, got_z = latent_recursion(net, x, y, z, n=0)
    assert got_z is z
    assert torch.equal(got_y, net(y, z))


@pytest.mark.parametrize("with_grad", [1, 2, 3])
def test_deep_recursion_equals_its_unrolled_form_in_value_and_gradient(net, xyz, with_grad):
    n, T = 2, 3
    y, z = deep_recursion(net, *xyz, n, T, with_grad)
    assert net.calls == T * (n + 1)
    got = gradients(net, y, z)
    expected_y, expected_z = unrolled(net, *xyz, n, T, cut=T - with_grad)
    assert torch.equal(y, expected_y) and torch.equal(z, expected_z)
    for a, b in zip(got, gradients(net, expected_y, expected_z), strict=True):
        torch.testing.assert_close(a, b)


def test_gradient_of_the_last_recursion_is_not_that_of_all(net, xyz):
    full = gradients(net, *unrolled(net, *xyz, 2, 3, cut=None))
    all_three = gradients(net, *deep_recursion(net, *xyz, 2, 3, with_grad=3))
    last = gradients(net, *deep_recursion(net, *xyz, 2, 3))
    for a, b, c in zip(full, all_three, last, strict=True):
        torch.testing.assert_close(a, b)
        assert (a - c).abs().max() > 1e-3


def test_initial_states_get_gradient_only_without_a_cut(net, xyz):
    x, y, z = (a.requires_grad_() for a in xyz)
    for with_grad, reached in ((2, True), (1, False)):
        out, _ = deep_recursion(net, x, y, z, n=1, T=2, with_grad=with_grad)
        gx, gy, gz = torch.autograd.grad(out.sum(), (x, y, z), allow_unused=True)
        assert gx is not None
        assert (gy is not None) == (gz is not None) == reached


@pytest.mark.parametrize("with_grad", [0, 4, -1])
def test_with_grad_outside_its_range_is_refused(net, xyz, with_grad):
    with pytest.raises(ValueError, match=rf"with_grad must lie in 1\.\.T=3, got {with_grad}$"):
        deep_recursion(net, *xyz, 2, 3, with_grad)


def test_fewer_than_no_updates_are_refused(net, xyz):
    with pytest.raises(ValueError, match="^n must be ≥ 0, got -1$"):
        deep_recursion(net, *xyz, -1, 3)
    with pytest.raises(ValueError, match="^with_grad must be ≥ 0, got -1$"):
        latent_recursion(net, *xyz, 3, with_grad=-1)


def test_refine_returns_every_state_and_counts_passes_from_zero():
    assert refine(lambda y, k: 10 * y + k, 7, 3) == [7, 70, 701, 7012]
    assert refine(None, 7, 0) == [7]

"""The grid model: the recursion unrolled by hand, where gradient goes, the published sizes, and the public code's own numbers."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from trmlib.errors import TrmError
from trmlib.layers import PlainAttention, PositionMLP, rms_norm, rotary_angles, rotate
from trmlib.models.grid import ATTENTION_7M, MIXING_5M, GridConfig, GridTRM, cell_nll, steps

SMALL = GridConfig(d=16, heads=2, multiple=8, padding=3, n=2, T=2, n_sup=3)
KINDS = [SMALL, replace(SMALL, mixer="attention"), replace(SMALL, padding=0)]


def model(config=SMALL, cells=16, digits=4, seed=0):
    torch.manual_seed(seed)
    m = GridTRM(config, cells, digits)
    with torch.no_grad():
        for p in m.parameters():
            if p.count_nonzero() == 0:
                p.normal_()
    return m


def boards(b=3, cells=16, digits=4):
    return torch.randint(0, digits + 1, (b, cells), generator=torch.Generator().manual_seed(1))


def layer(m, h):
    """All blocks of the net, written out on hidden states with the batch first (b, t, d)."""
    norm = lambda v, dim: v / (v.square().mean(dim, keepdim=True) + 1e-5).sqrt()  # noqa: E731

    def swiglu(v, weights):
        gate, up = (v @ weights.gate_up.T).chunk(2, -1)
        return (gate * torch.sigmoid(gate) * up) @ weights.down.T

    for block in m.blocks:
        if isinstance(block.mixer, PositionMLP):
            h = norm(h + swiglu(h.mT, block.mixer).mT, 1)
        else:
            heads, t = block.mixer.heads, h.shape[1]
            q, k, v = ((h @ w.T).unflatten(-1, (heads, -1)).transpose(1, 2) for w in block.mixer.qkv.chunk(3))
            angles = rotary_angles(t, q.shape[-1])
            weights = (rotate(q, angles) @ rotate(k, angles).mT / q.shape[-1] ** 0.5).softmax(-1)
            h = norm(h + (weights @ v).transpose(1, 2).flatten(2) @ block.mixer.out.T, -1)
        h = norm(h + swiglu(h, block.mlp), -1)
    return h


def unrolled(m, x, y, z, free=1, free_updates=0):
    """T = 2 recursions of n = 2 by hand, the first `free` of them without gradient, and `free_updates` of the last one's z."""

    def recursion(y, z, detached):
        for i in range(2):
            z = layer(m, x + y + z)
            z = z.detach() if i < detached else z
        return layer(m, y + z), z

    y, z = recursion(y, z, 0)
    y, z = (y.detach(), z.detach()) if free else (y, z)
    return recursion(y, z, free_updates)


def question(m, b):
    """x (b, t, d) by hand."""
    x = m.embedding[b]
    if m.config.padding:
        x = torch.cat([m.first.expand(len(b), 1, -1), torch.zeros(len(b), m.config.padding - 1, m.config.d), x], 1)
    return m.config.d**0.5 * x


def grads(m, value):
    return torch.autograd.grad(value, list(m.parameters()), allow_unused=True)


@pytest.mark.parametrize("config", KINDS, ids=["mlp", "attention", "no padding"])
def test_a_step_equals_its_unrolled_form_in_values_and_gradient(config):
    m, b = model(config), boards()
    logits, halting, states = m(b)
    start = [v.expand(3, 16 + config.padding, -1) for v in m.fixed]
    y, z = unrolled(m, question(m, b), *start)
    torch.testing.assert_close(logits, y[:, config.padding :] @ m.head.T, atol=1e-4, rtol=1e-4)
    read = y[:, 0] if config.padding else y.mean(1)
    torch.testing.assert_close(halting, read @ m.halting + m.bias, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(states[0], y.transpose(0, 1), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(states[1], z.transpose(0, 1), atol=1e-4, rtol=1e-4)
    assert not any(s.requires_grad for s in states)
    ours, theirs = grads(m, logits.square().sum()), grads(m, (y[:, config.padding :] @ m.head.T).square().sum())
    for a, e in zip(ours, theirs, strict=True):
        assert (a is None) == (e is None)
        if a is not None:
            torch.testing.assert_close(a, e, atol=1e-3, rtol=1e-3)


def test_one_step_gradient_reaches_only_the_last_latent_update():
    m, b = model(replace(SMALL, one_step=True)), boards()
    start = [v.expand(3, 19, -1) for v in m.fixed]
    ours = grads(m, m(b)[0].square().sum())
    for free_updates, same in ((1, True), (0, False)):
        y, _ = unrolled(m, question(m, b), *start, free_updates=free_updates)
        theirs = grads(m, (y[:, 3:] @ m.head.T).square().sum())
        close = [a is None or torch.allclose(a, e, atol=1e-3, rtol=1e-3) for a, e in zip(ours, theirs, strict=True)]
        assert all(close) == same


def test_a_single_latent_equals_its_unrolled_form():
    m, b = model(replace(SMALL, single=True)), boards()
    x, z = question(m, b), m.fixed[0].expand(3, 19, -1)
    for _ in range(2):
        for _ in range(2):
            z = layer(m, x + z)
        z = layer(m, z)
    torch.testing.assert_close(m(b)[0], z[:, 3:] @ m.head.T, atol=1e-4, rtol=1e-4)


def test_n_and_T_can_be_given_for_a_call():
    m, b = model(), boards()
    other = GridTRM(replace(SMALL, n=3, T=1), 16, 4)
    other.load_state_dict(m.state_dict())
    assert torch.equal(m(b, n=3, T=1)[0], other(b)[0])


def test_layers_by_hand():
    x = torch.tensor([[[3.0, 4.0]], [[1.0, 1.0]]])  # (t, b, d)
    torch.testing.assert_close(rms_norm(x, -1)[0, 0], torch.tensor([3.0, 4.0]) / 12.5**0.5)
    torch.testing.assert_close(rms_norm(x, 0)[:, 0, 0], torch.tensor([3.0, 1.0]) / 5**0.5)
    attention = PlainAttention(4, 2)
    with torch.no_grad():
        attention.qkv[:8] = 0  # equal weights: the mean of the values
    x = torch.randn(5, 2, 4)
    mean = (x @ attention.qkv[8:].T).mean(0) @ attention.out.T
    torch.testing.assert_close(attention(x, rotary_angles(5, 2)[:, None, None]), mean.expand(5, -1, -1))


# Sizes and start states


def test_the_published_sizes():
    """The public code counts 5,028,866 and 6,828,034 parameters: ours, and a second output of the halting head that it does not
    train (513), less the learnt vector of the padding (512), which it trains as a buffer."""
    counts = [sum(p.numel() for p in GridTRM(c, 81, 9).parameters()) for c in (MIXING_5M, ATTENTION_7M)]
    assert counts == [5_028_866 - 513 + 512, 6_828_034 - 513 + 512]
    heads = 2 * 11 * 512 + 512 + 513
    assert counts == [heads + 2 * 3 * (97 * 512 + 512 * 1536), heads + 2 * (4 * 512 * 512 + 3 * 512 * 1536)]
    bare = sum(p.numel() for p in GridTRM(GridConfig(padding=0), 81, 9).parameters())
    assert bare == 2 * 10 * 512 + 513 + 2 * 3 * (81 * 256 + 512 * 1536)


def test_weights_start_as_published():
    torch.manual_seed(0)
    m = GridTRM(MIXING_5M, 81, 9)
    for name, p in m.named_parameters():
        if p.dim() == 2:
            scale = p.shape[1] ** -0.5
            assert p.std().item() == pytest.approx(scale, rel=0.05), name
            assert p.abs().max() <= 2 * scale / 0.8796 + 1e-6
    assert m.bias == -5 and not m.halting.any() and not m.first.any()
    assert "blocks.1.mixer.down" in m.hidden_matrices() and "embedding" not in m.hidden_matrices() and len(m.hidden_matrices()) == 8


def test_start_states():
    a, b = model(seed=0), model(seed=1)
    y, z = a.start(2)
    assert y.shape == z.shape == (19, 2, 16) and not torch.equal(y, z)
    assert torch.equal(y[0, 0], y[7, 1]) and torch.equal(y, b.start(2)[0])  # one vector everywhere, the same for every seed
    noise = model(replace(SMALL, start="random"))
    g = lambda: torch.Generator().manual_seed(0)  # noqa: E731
    assert torch.equal(noise.eval().start(2, generator=g())[0], noise.start(2, generator=g())[0])
    assert not torch.equal(noise.start(2)[0], noise.start(2)[0])
    assert torch.equal(noise.start(2, noise=False)[0], y) and not torch.equal(a.start(2, noise=True)[0], y)
    for kind in ("examples", "entries"):
        m = model(replace(SMALL, start=kind))
        states = m.train().start(400)
        own = torch.stack([s == f for s, f in zip(states, m.start(400, noise=False), strict=True)])  # (2, t, b, d)
        assert own.float().mean().item() == pytest.approx(0.5, abs=0.1)
        per_example = own.flatten(0, 1).transpose(0, 1).flatten(1).float().mean(1)
        assert set(per_example.tolist()) == {0.0, 1.0} if kind == "examples" else 0.3 < per_example.min() < per_example.max() < 0.7
        assert torch.equal(m.eval().start(3)[0], m.start(3, noise=False)[0])


def test_fresh_examples_begin_and_others_go_on():
    m, b = model().eval(), boards()
    states = m(b)[2]
    again, onward, mixed = m(b), m(b, states), m(b, states, fresh=torch.tensor([False, True, False]))
    torch.testing.assert_close(mixed[0][1], again[0][1])
    torch.testing.assert_close(mixed[0][[0, 2]], onward[0][[0, 2]])
    assert not torch.allclose(again[0], onward[0], atol=1e-3)


def test_steps_go_on_from_given_states():
    m, b = model(), boards()
    whole = list(steps(m, b, 3))
    (_, _, states), *rest = whole
    for (logits, halting, _), (l, h, _) in zip(steps(m, b, 2, states), rest, strict=True):
        assert torch.equal(logits, l) and torch.equal(halting, h)
    assert len(list(steps(m, b))) == 3


# Losses


def test_stablemax_by_hand():
    logits = torch.tensor([[[0.0, 1.0, -1.0]]])  # s = 1, 2, 1/2
    for target, p in enumerate((2 / 7, 4 / 7, 1 / 7)):
        assert cell_nll(logits, torch.tensor([[target]]), "stablemax").item() == pytest.approx(-torch.tensor(p).log().item(), abs=1e-6)
    assert cell_nll(logits, torch.tensor([[1]]), "softmax").item() == pytest.approx(F.cross_entropy(logits[0], torch.tensor([1])).item())
    assert torch.isfinite(cell_nll(torch.tensor([[[1e30, -1e30, 0.0]]]), torch.tensor([[0]]), "stablemax")).all()


# The public code's numbers


def by_formula(config):
    """A model whose weights are sines: fan-in scaled, each parameter with a frequency of its own."""
    m = GridTRM(config, 81, 9)
    for i, p in enumerate(m.parameters()):
        k = torch.arange(p.numel(), dtype=torch.float64)
        p.data = (torch.sin(k * (0.7 + 0.1 * i) + i) * 1.4 / (p.shape[-1] if p.dim() else 1) ** 0.5).view(p.shape).float()
    m.fixed.copy_(torch.cos(1.3 * torch.arange(m.fixed.numel(), dtype=torch.float64)).view_as(m.fixed))
    return m


SMALL_MLP = GridConfig(d=64, n=2, T=2)
PUBLIC = {  # config → for each supervision step: halting logits of both boards, four logits of a cell, Σ logits, Σ logits²
    MIXING_5M: [
        ([-0.827334, -0.7785], [-0.483525, -0.609978, 0.033465, 0.634669], 10.3977, 169.5267),
        ([-0.963755, -0.824549], [-0.390483, -0.58899, -0.044091, 0.556458], 15.5672, 192.2183),
    ],
    ATTENTION_7M: [
        ([-0.876413, -0.875637], [-0.038952, -0.204534, -0.111959, 0.121927], 9.3414, 42.1119),
    ],
    GridConfig(d=64, heads=2, single=True): [
        ([-1.042508, -1.014241], [-0.069833, -0.047725, 0.013117, 0.063312], 8.1922, 57.4829),
        ([-1.037362, -0.996089], [-0.047538, -0.029331, 0.012681, 0.044401], 7.1516, 55.9532),
    ],
    SMALL_MLP: [
        ([-1.082944, -1.029502], [0.234602, 0.224309, 0.03197, -0.186316], 37.9952, 73.1043),
        ([-1.077687, -1.016663], [0.085921, -0.041643, -0.13541, -0.119281], 35.4214, 177.5555),
        ([-1.093796, -1.009942], [-0.120982, -0.369197, -0.317776, -0.008453], 36.6866, 554.5900),
    ],
    replace(SMALL_MLP, mixer="attention", heads=2): [
        ([-1.023091, -1.023252], [0.171053, 0.184995, 0.048798, -0.127003], 37.3125, 50.3156),
        ([-1.016123, -1.016476], [0.133226, 0.150119, 0.045178, -0.096429], 31.8947, 40.3210),
        ([-1.016973, -1.017416], [0.115495, 0.131412, 0.040677, -0.083071], 28.2973, 34.0394),
    ],
}


@pytest.mark.parametrize("config", PUBLIC, ids=["5M", "7M", "single", "small mlp", "small attention"])
def test_same_weights_give_the_public_codes_numbers(config):
    """SamsungSAILMontreal/TinyRecursiveModels, models/recursive_reasoning/{trm,trm_singlez}.py in fp32 on a CPU, with these weights
    (its symbol 0, padding, is our last) and start vectors, on two boards. Its loss, too: models/losses.py."""
    k = torch.arange(162).view(2, 81)
    b = (k * k * 7 + 3 * k) % 11 % 10
    expected = PUBLIC[config]
    for (logits, halting, _), (halts, cell, total, squares) in zip(steps(by_formula(config), b, len(expected)), expected, strict=True):
        torch.testing.assert_close(halting, torch.tensor(halts), atol=1e-5, rtol=0)
        torch.testing.assert_close(logits[1, 40, :4], torch.tensor(cell), atol=1e-5, rtol=0)
        assert logits.double().sum().item() == pytest.approx(total, abs=1e-2)
        assert logits.double().square().sum().item() == pytest.approx(squares, rel=1e-4)


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"mixer": "conv"}, "GridConfig: mixer='conv' is unknown; choose one of mlp, attention"),
        ({"start": "zeros"}, "GridConfig: start='zeros' is unknown; choose one of fixed, random, examples, entries"),
        ({"loss": "mse"}, "GridConfig: loss='mse' is unknown; choose one of stablemax, softmax"),
        ({"n": 0}, "GridConfig: n=0 must be a whole number ≥ 1"),
        ({"expansion": 0}, "GridConfig: expansion=0 must be a number > 0"),
        ({"mixer": "attention", "d": 100}, "width d=100 must be an even multiple of heads=8 (rotary positions turn pairs)"),
        ({"T_width": 3}, "T_width=3 must lie in 0 … T - 1 = 2"),
        ({"explore": 1.5}, "GridConfig: explore=1.5 must be a number from 0 to 1"),
    ],
)
def test_a_config_that_cannot_be_is_one_clear_line(fields, message):
    with pytest.raises(TrmError) as e:
        GridConfig(**fields)
    assert str(e.value) == message

"""Attention, blocks and dropout against PyTorch's own and against each other."""

import pytest
import torch
from torch import nn

from trmlib.errors import TrmError
from trmlib.layers import Attention, Block, Dropout, gather

D, HEADS = 24, 4


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def multihead_copy(attention):
    """nn.MultiheadAttention with the weights of `attention`."""
    reference = nn.MultiheadAttention(D, HEADS, batch_first=True)
    pairs = [
        (reference.in_proj_weight, attention.qkv.weight),
        (reference.in_proj_bias, attention.qkv.bias),
        (reference.out_proj.weight, attention.out.weight),
        (reference.out_proj.bias, attention.out.bias),
    ]
    with torch.no_grad():
        for mine, its in pairs:
            mine.copy_(its)
    return reference


@pytest.fixture
def attention():
    torch.manual_seed(0)
    a = Attention(D, HEADS)
    nn.init.normal_(a.qkv.bias)
    nn.init.normal_(a.out.bias)
    return a


def test_attention_equals_multihead_attention(attention):
    x = random(3, 7, D)
    expected, _ = multihead_copy(attention)(x, x, x)
    torch.testing.assert_close(attention(x), expected, atol=1e-5, rtol=1e-5)


def test_attention_with_queries_equals_multihead_attention(attention):
    x, q = random(3, 7, D), random(3, 2, D, seed=1)
    expected, _ = multihead_copy(attention)(q, x, x)
    torch.testing.assert_close(attention(x, q), expected, atol=1e-5, rtol=1e-5)


def test_masked_attention_equals_multihead_attention(attention):
    x, mask = random(3, 7, D), torch.ones(7, 7).tril().bool()
    expected, _ = multihead_copy(attention)(x, x, x, attn_mask=~mask)
    torch.testing.assert_close(attention(x, mask=mask), expected, atol=1e-5, rtol=1e-5)


def test_mask_hides_and_only_what_it_names(attention):
    x, mask = random(2, 5, D), torch.ones(5, 5, dtype=torch.bool)
    mask[1, 3] = False  # position 1 may not look at 3
    changed = x.clone()
    changed[:, 3] += 1
    difference = (attention(x, mask=mask) - attention(changed, mask=mask)).abs().amax((0, 2))
    assert difference[1] == 0
    assert (difference[[0, 2, 3, 4]] > 1e-3).all()


def test_attention_starts_like_multihead_attention():
    torch.manual_seed(3)
    mine = Attention(D, HEADS)
    bound = (6 / (D + 3 * D)) ** 0.5
    assert 0.97 * bound < mine.qkv.weight.abs().max() <= bound
    assert not mine.qkv.bias.any() and not mine.out.bias.any()


@pytest.mark.parametrize("layer", [Attention, Block])
def test_width_must_be_a_multiple_of_heads(layer):
    with pytest.raises(TrmError, match="^width d=25 must be a multiple of heads=4$"):
        layer(25, 4)


def test_block_at_positions_equals_full_block_gathered():
    torch.manual_seed(0)
    block = Block(D, HEADS, dropout=0.2).eval()
    x, at = random(3, 7, D), torch.tensor([[1, 4], [5, 2], [3, 3]])
    torch.testing.assert_close(block(x, at), gather(block(x), at), atol=1e-6, rtol=1e-5)


def test_block_is_pre_norm_written_out():
    torch.manual_seed(0)
    block = Block(D, HEADS).eval()
    nn.init.normal_(block.norm1.weight)
    nn.init.normal_(block.norm2.bias)
    x = random(2, 5, D)
    h = block.norm1(x)
    y = x + multihead_copy(block.attention)(h, h, h)[0]
    expected = y + block.mlp[3](nn.functional.gelu(block.mlp[0](block.norm2(y))))
    torch.testing.assert_close(block(x), expected, atol=1e-5, rtol=1e-5)


def test_a_normed_block_brings_both_of_its_sums_to_unit_size_and_has_the_same_weights():
    torch.manual_seed(0)
    block, plain = Block(D, HEADS, normed=True).eval(), Block(D, HEADS).eval()
    plain.load_state_dict(block.state_dict())
    x = 3 * random(2, 5, D)
    plain.mlp[3].weight.data.zero_(), plain.mlp[3].bias.data.zero_()
    first = plain(x)  # x + attention(norm x)
    first = first / first.square().mean(-1, keepdim=True).sqrt()
    second = first + block.mlp(block.norm2(first))
    torch.testing.assert_close(block(x), second / second.square().mean(-1, keepdim=True).sqrt(), atol=1e-5, rtol=1e-5)
    at = torch.tensor([[1, 4], [0, 2]])
    torch.testing.assert_close(block(x, at), gather(block(x), at), atol=1e-6, rtol=1e-5)


def test_gather_takes_rows_of_each_example():
    x, at = random(2, 5, 3), torch.tensor([[4, 0, 0], [1, 2, 3]])
    expected = torch.stack([x[0, [4, 0, 0]], x[1, [1, 2, 3]]])
    assert torch.equal(gather(x, at), expected)


@pytest.mark.parametrize("p", [0.1, 0.2, 0.5, 0.9])
def test_dropout_rate_scale_and_expectation(p):
    torch.manual_seed(0)
    n = 400_000
    y = Dropout(p)(torch.ones(n // 100, 100))
    kept = y != 0
    torch.testing.assert_close(y[kept], torch.full((int(kept.sum()),), 1 / (1 - p)))
    sigma = (p * (1 - p) / n) ** 0.5
    assert abs(1 - kept.float().mean() - p) < 4 * sigma
    assert abs(y.mean() - 1) < 4 * sigma / (1 - p)


def test_dropout_draws_entries_independently():
    torch.manual_seed(0)
    kept = (Dropout(0.5)(torch.ones(50_000, 4)) != 0).float()
    correlation = torch.corrcoef(kept.T) - torch.eye(4)  # the four entries of one 64-bit draw
    assert correlation.abs().max() < 4 / 50_000**0.5


def test_dropout_of_any_number_of_entries_and_any_layout():
    torch.manual_seed(0)
    for shape in ((1,), (3,), (5, 7), (2, 3, 5)):
        assert set(Dropout(0.5)(torch.ones(shape)).flatten().tolist()) <= {0.0, 2.0}
    x = 1 + random(6, 5).abs()
    torch.manual_seed(1)
    straight = Dropout(0.5)(x)
    torch.manual_seed(1)
    assert torch.equal(Dropout(0.5)(x.T.contiguous().T), straight)


def test_dropout_is_the_identity_in_evaluation_and_at_rate_zero():
    x = random(5, 5)
    assert Dropout(0.5).eval()(x) is x
    assert Dropout(0.0)(x) is x


def test_dropout_follows_the_seed():
    x, drop = torch.ones(1000), Dropout(0.3)
    torch.manual_seed(5)
    first, second = drop(x), drop(x)
    torch.manual_seed(5)
    assert torch.equal(drop(x), first)
    assert not torch.equal(first, second)


def test_dropout_gradient_is_its_mask():
    torch.manual_seed(0)
    x = random(40, 40).requires_grad_()
    y = Dropout(0.25)(x)
    y.sum().backward()
    assert torch.equal(x.grad, torch.where(y == 0, 0.0, torch.tensor(1 / 0.75)))
    assert 0 < (x.grad == 0).sum() < x.numel()


def test_dropout_under_vmap_differs_between_copies():
    torch.manual_seed(0)
    y = torch.func.vmap(Dropout(0.4), randomness="different")(torch.ones(2, 20_000))
    assert not torch.equal(y[0], y[1])
    assert abs((y == 0).float().mean() - 0.4) < 4 * (0.24 / 40_000) ** 0.5
    torch.testing.assert_close(y.max(), torch.tensor(1 / 0.6))

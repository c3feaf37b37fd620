"""The chunk models against re-implementations written by hand: logits, gradients, leaks, generation."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call, stack_module_state, vmap

from trmlib.errors import TrmError
from trmlib.layers import rotary_angles, rotate
from trmlib.models.chunk import ChunkConfig, ChunkLM, draw, generate, slot_nll, strip
from trmlib.probe import dependency, leaks
from trmlib.recursion import deep_recursion

VOCAB, CONTEXT, CHUNK, BATCH = 11, 6, 3, 4
TRM = ChunkConfig(d=8, heads=2, n=2, T=2)
CAUSAL = replace(TRM, start="shifted", encode=False, causal=True, n=0, T=1)
ARMS = {
    "bounded": replace(TRM, bounded=True),
    "normed": replace(TRM, normed=True),
    "target": replace(TRM, start="target"),
    "mask": TRM,
    "last": replace(TRM, start="last"),
    "zeros": replace(TRM, start="zeros"),
    "causal slots": replace(TRM, causal=True),
    "untied head": replace(TRM, tied_head=False),
    "parallel": replace(TRM, n=0, T=1),
    "baseline": CAUSAL,
    "reused": replace(CAUSAL, T=3),
    "reused, no shift": replace(CAUSAL, T=3, start="target"),  # the earlier autoregressive model
    "no encoder": replace(TRM, encode=False),
    "rotary": replace(TRM, positions="rotary"),
    "rotary, reused": replace(CAUSAL, T=3, positions="rotary"),
    "noise": replace(TRM, start="noise"),
}


def build(config, seed=0, **sizes):
    """A model in evaluation mode whose every parameter is random (also norms and biases)."""
    torch.manual_seed(seed)
    model = ChunkLM(config, **{"vocab": VOCAB, "context": CONTEXT, "chunk": CHUNK, **sizes}).eval()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.2 * torch.randn_like(p))
    return model


def windows(seed=0, length=CONTEXT + CHUNK):
    return torch.randint(VOCAB, (BATCH, length), generator=torch.Generator().manual_seed(seed))


def turned(h):
    """Queries or keys (b, heads, t, d) at positions 0, 1, …, each pair (i, i + d/2) turned by its angle, as complex numbers."""
    half = h.shape[-1] // 2
    angle = torch.arange(h.shape[-2])[:, None] * 10_000.0 ** (-torch.arange(half) / half)
    return torch.view_as_real(torch.complex(h[..., :half], h[..., half:]) * torch.polar(torch.ones(()), angle)).movedim(-1, -2).flatten(-2)


def rotary_attention(attention, h, causal):
    """Attention over all positions, written out, queries and keys turned."""
    q, k, v = (part.unflatten(-1, (attention.heads, -1)).movedim(1, 2) for part in attention.qkv(h).chunk(3, -1))
    scores = turned(q) @ turned(k).mT / q.shape[-1] ** 0.5
    if causal:
        scores = scores + torch.full(scores.shape[-2:], float("-inf")).triu(1)
    return attention.out((scores.softmax(-1) @ v).movedim(1, 2).flatten(2))


def reference_block(block, x, causal, normed, rotary=False):
    """The block with PyTorch's own attention over all positions, or with rotary positions."""
    d = x.shape[-1]
    attention = nn.MultiheadAttention(d, block.attention.heads, batch_first=True)
    params = {
        "in_proj_weight": block.attention.qkv.weight, "in_proj_bias": block.attention.qkv.bias,
        "out_proj.weight": block.attention.out.weight, "out_proj.bias": block.attention.out.bias,
    }  # fmt: skip
    h = F.layer_norm(x, (d,), block.norm1.weight, block.norm1.bias)
    mask = torch.full((x.shape[1],) * 2, float("-inf")).triu(1) if causal else None
    size = lambda v: v / (v.square().mean(-1, keepdim=True) + torch.finfo(v.dtype).eps).sqrt() if normed else v  # noqa: E731
    seen = functional_call(attention, params, (h, h, h), {"attn_mask": mask, "need_weights": False})[0]
    x = size(x + (rotary_attention(block.attention, h, causal) if rotary else seen))
    h = F.layer_norm(x, (d,), block.norm2.weight, block.norm2.bias)
    return size(x + block.mlp[3](F.gelu(block.mlp[0](h))))


def reference(model, tokens, cut=None):
    """Logits (b, m, vocab) by hand; the states are detached before update number `cut` of z and y together."""
    c, m, rotary = model.config, CHUNK, model.config.positions == "rotary"
    inputs = tokens[:, :-1] if c.start == "shifted" else tokens
    h = model.embedding.weight[inputs]
    start = {
        "mask": lambda: model.mask.expand(len(tokens), m, -1), "last": lambda: h[:, -m - 1 : -m].expand(-1, m, -1),
        "zeros": lambda: torch.zeros(len(tokens), m, c.d),
        "noise": lambda: c.noise * torch.randn(len(tokens), m, c.d, generator=torch.Generator().manual_seed(0)),
    }.get(c.start, lambda: h[:, -m:])()  # fmt: skip
    places = torch.zeros(CONTEXT + m, c.d) if rotary else model.position.weight
    x, y = h[:, :-m] + places[: inputs.shape[1] - m], start + places[inputs.shape[1] - m : inputs.shape[1]]
    z = torch.zeros_like(y)
    if c.encode:
        for block in model.blocks:
            x = reference_block(block, x, True, c.normed, rotary)
    update = 0
    for _ in range(c.T):
        for i in range(c.n + 1):
            if update == cut:
                y, z = y.detach(), z.detach()
            both = torch.cat([x, y + z], 1)
            for block in model.blocks:
                both = reference_block(block, both, c.causal, c.normed, rotary)
            if i < c.n:
                z = both[:, -m:]
            else:
                y = both[:, -m:]
            update += 1
        if c.bounded:
            y, z = (s / (s.square().mean(-1, keepdim=True) + torch.finfo(s.dtype).eps).sqrt() for s in (y, z))
    y = F.layer_norm(y, (c.d,), model.norm.weight, model.norm.bias)
    return y @ (model.embedding if model.head is None else model.head).weight.T


@pytest.mark.parametrize("start", ["target", "shifted"])
def test_parameter_counts_are_the_earlier_codes(start):
    config = ChunkConfig(start=start)
    assert sum(p.numel() for p in ChunkLM(config, 65, 64, 2).parameters()) == 108_480
    assert sum(p.numel() for p in ChunkLM(replace(config, d=128), 50_258, 64, 4).parameters()) == 6_838_528


def test_a_mask_embedding_is_d_parameters_and_changes_no_other_weight():
    counted = [sum(p.numel() for p in ChunkLM(ChunkConfig(start=s), 65, 64, 2).parameters()) for s in ("mask", "zeros")]
    assert counted[0] - counted[1] == 64
    torch.manual_seed(3)
    with_mask = dict(ChunkLM(TRM, VOCAB, CONTEXT, CHUNK).named_parameters())
    torch.manual_seed(3)
    for name, p in ChunkLM(ARMS["target"], VOCAB, CONTEXT, CHUNK).named_parameters():
        assert torch.equal(p, with_mask[name])


@pytest.mark.parametrize("arm", ARMS)
def test_logits_equal_the_reference(arm):
    model, tokens = build(ARMS[arm]), windows()
    torch.testing.assert_close(model(tokens)[0], reference(model, tokens), atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("gradient, cut", [("all", None), ("last", 3), ("update", 4)])
def test_gradient_reaches_exactly_where_it_should(gradient, cut):
    model, tokens = build(replace(TRM, gradient=gradient)), windows()  # updates z z y z z y; the last recursion begins at 3
    params = list(model.parameters())
    got = torch.autograd.grad(model(tokens)[0].square().sum(), params, materialize_grads=True)
    expected = torch.autograd.grad(reference(model, tokens, cut).square().sum(), params, materialize_grads=True)
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a, b, atol=1e-3, rtol=1e-3)


def test_the_models_recursion_is_deep_recursion():
    model, tokens = build(ARMS["target"]), windows()
    _, (y, z) = model(tokens)
    x = model.placed(model.embedding(tokens[:, :CONTEXT]), 0)
    for block in model.blocks:
        x = block(x, mask=torch.ones(CONTEXT, CONTEXT, dtype=torch.bool).tril())
    start = model.placed(model.embedding(tokens[:, CONTEXT:]), CONTEXT)
    net = lambda *s: model.stack(x, s[-2] + s[-1])  # noqa: E731
    expected = deep_recursion(net, x, start, torch.zeros_like(start), TRM.n, TRM.T)
    torch.testing.assert_close((y, z), expected, atol=1e-5, rtol=1e-5)


def test_a_carried_state_goes_on_where_it_was_and_holds_no_gradient():
    model, tokens = build(TRM), windows()
    _, carry = model(tokens)
    assert not any(s.requires_grad for s in carry)
    torch.testing.assert_close(model(tokens, carry=carry)[0], model(tokens, passes=4)[0], atol=1e-6, rtol=1e-5)


def test_read_out_after_every_pass_equals_fewer_passes():
    model, tokens = build(TRM), windows()
    every = model(tokens, passes=3, every_pass=True)[0]
    assert every.shape == (4, BATCH, CHUNK, VOCAB)
    for k, logits in enumerate(every):
        torch.testing.assert_close(logits, model(tokens, passes=k)[0], atol=1e-6, rtol=1e-5)


def test_every_position_of_a_causal_model_at_once():
    model, tokens = build(CAUSAL), windows()
    everywhere = model(tokens, slots=tokens.shape[1] - 1)[0]
    assert everywhere.shape == (BATCH, CONTEXT + CHUNK - 1, VOCAB)
    torch.testing.assert_close(everywhere[:, -CHUNK:], model(tokens)[0], atol=1e-6, rtol=1e-5)
    shorter = model(tokens[:, :5], slots=1)[0]  # a prefix predicts the same next token
    torch.testing.assert_close(everywhere[:, 3:4], shorter, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("arm", [a for a in ARMS if a != "untied head"])
def test_what_leaks(arm):
    config = ARMS[arm]
    model, tokens = build(config), windows()
    matrix = dependency(lambda t: model(torch.cat([tokens[:, :CONTEXT], t], 1))[0], tokens[:, CONTEXT:], VOCAB)
    found = {(i, j) for i, j, _ in leaks(matrix, "autoregressive" if config.chain else "parallel")}
    if config.start == "target":  # on the diagonal; unmasked refinement lets every slot see all others, too
        assert {(0, 0), (1, 1), (2, 2)} <= found
    else:
        assert not found
        assert (matrix[1, 0] > 1e-3) == config.chain


def test_a_whole_model_predicts_its_chunk_as_it_is_trained():
    """Every position is a slot, refined as often as the chunk's: what training reads last. With slots for the chunk alone another function is read."""
    config = replace(CAUSAL, T=3, everywhere=True, whole=True)
    model, tokens = build(config), windows()
    trained = model(tokens, slots=tokens.shape[1] - 1, every_pass=True)[0]
    every = model(tokens, every_pass=True)[0]
    assert (
        every.shape == (4, BATCH, CHUNK, VOCAB) and torch.equal(every, trained[:, :, -CHUNK:]) and torch.equal(model(tokens)[0], every[-1])
    )
    alone = build(replace(config, whole=False))(tokens)[0]
    assert (alone - every[-1]).abs().max() > 0.01
    assert not leaks(dependency(lambda t: model(torch.cat([tokens[:, :CONTEXT], t], 1))[0], tokens[:, CONTEXT:], VOCAB), "autoregressive")
    text = generate(model, tokens[:, :5], 2, temperature=0)  # one word after the other, as the window grows
    first = model(F.pad(tokens[:, :5], (0, CHUNK)))[0].argmax(-1)[:, 0]
    assert torch.equal(text[:, 5], first)


def test_noise_is_drawn_anew_in_training_and_weights_as_wide_as_told():
    torch.manual_seed(0)
    model, tokens = ChunkLM(replace(TRM, start="noise", dropout=0.0, d=64), 500, CONTEXT, CHUNK), windows()
    assert not torch.equal(model(tokens)[0], model(tokens)[0])
    assert model.embedding.weight.std().item() == pytest.approx(0.02, rel=0.05)


def test_another_start_may_be_named_or_be_tokens():
    model, tokens = build(ARMS["target"]), windows()
    torch.testing.assert_close(model(tokens, start=tokens[:, CONTEXT:])[0], model(tokens)[0])
    zeros = build(ARMS["zeros"])
    zeros.load_state_dict(model.state_dict())
    torch.testing.assert_close(model(tokens, start="zeros")[0], zeros(tokens)[0])
    assert torch.equal(model(tokens, start="noise")[0], model(tokens, start="noise")[0])  # in evaluation always the same noise
    with pytest.raises(TrmError, match="^a model with start='target' has no mask embedding to start from$"):
        model(tokens, start="mask")


def test_rotary_scores_depend_on_the_distance_alone():
    q, k = torch.randn(2, 8, generator=torch.Generator().manual_seed(0))
    angles = rotary_angles(10, 8)
    score = lambda i, j: (rotate(q[None], angles[i : i + 1]) * rotate(k[None], angles[j : j + 1])).sum()  # noqa: E731
    torch.testing.assert_close(score(2, 5), score(6, 9))
    assert (score(2, 5) - score(2, 6)).abs() > 1e-3
    assert angles[3, 0] == 3 and angles[3, 2].item() == pytest.approx(3 * 10_000**-0.5)
    c, s = angles[2].cos(), angles[2].sin()
    torch.testing.assert_close(rotate(q[None], angles[2:3])[0], torch.cat([q[:4] * c - q[4:] * s, q[:4] * s + q[4:] * c]))


def test_widths_and_heads_that_fit_no_block_are_refused():
    with pytest.raises(TrmError, match="^width d=10 must be a multiple of heads=4$"):
        ChunkLM(ChunkConfig(d=10, heads=4), 9, 8, 2)


def test_rotary_positions_under_autocast():
    """Angles are single precision and queries halves: the scores stay halves, and close."""
    model = ChunkLM(replace(TRM, positions="rotary"), 50, 8, 2).eval()
    tokens = torch.randint(50, (3, 10), generator=torch.Generator().manual_seed(0))
    whole = model(tokens)[0]
    with torch.autocast("cpu", torch.bfloat16):
        half = model(tokens)[0]
    assert half.dtype == torch.bfloat16 and (half.float() - whole).abs().max() < 0.05 * whole.abs().max()
    with pytest.raises(TrmError, match=r"^width d=20 must be an even multiple of heads=4 \(rotary positions turn pairs\)$"):
        ChunkConfig(d=20, heads=4, positions="rotary")


def test_likelihoods_by_hand():
    logits = torch.tensor([[[0.0, 0.0], [1.0, 0.0]]])  # one chunk of two slots
    tokens = torch.tensor([[9, 1, 0]])
    nll = slot_nll(logits, tokens)
    torch.testing.assert_close(nll, torch.tensor([[0.693147, 0.313262]]))
    torch.testing.assert_close(slot_nll(torch.stack([logits, logits]), tokens), torch.stack([nll, nll]))


def test_the_chain_rule_sums_to_one_over_all_chunks():
    model, context = build(CAUSAL, chunk=2), windows(length=CONTEXT)[:1]
    pairs = torch.cartesian_prod(torch.arange(VOCAB), torch.arange(VOCAB))
    tokens = torch.cat([context.expand(len(pairs), -1), pairs], 1)
    assert (-slot_nll(model(tokens)[0], tokens).sum(-1)).exp().sum().item() == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("config", [CAUSAL, TRM], ids=["causal", "parallel"])
def test_greedy_generation_by_hand(config):
    model, prompt = build(config), windows(length=5)
    text = prompt
    for _ in range(2):
        chunk = torch.zeros(BATCH, CHUNK, dtype=torch.long)
        for slot in range(CHUNK):
            best = model(torch.cat([text[:, -CONTEXT:], chunk], 1))[0].argmax(-1)
            chunk[:, slot] = best[:, slot]
        text = torch.cat([text, chunk], 1)
    assert torch.equal(generate(model, prompt, 5, temperature=0), text[:, :10])


def test_sampling_keeps_to_the_likeliest_and_to_its_seed():
    logits = torch.tensor([2.0, 1.0, 0.0, -1.0]).expand(2000, 4)
    tokens = draw(logits, 0.5, 2, torch.Generator().manual_seed(0))
    assert set(tokens.tolist()) == {0, 1}
    assert (tokens == 0).float().mean().item() == pytest.approx(1 / (1 + torch.tensor(-2.0).exp().item()), abs=0.03)
    model, prompt = build(TRM), windows()
    a, b, c = (generate(model, prompt, 6, seed=s) for s in (0, 0, 1))
    assert torch.equal(a, b) and not torch.equal(a, c)
    with pytest.raises(TrmError, match="cannot generate"):
        generate(build(ARMS["target"]), prompt, 3)


def test_the_strip_of_passes():
    model, tokens = build(TRM), windows()
    found = strip(model, tokens[0])
    p = model(tokens[:1], every_pass=True)[0][:, 0].softmax(-1)
    assert found["token"].shape == (TRM.T + 1, CHUNK) and (found["token"] == p.argmax(-1).numpy()).all()
    assert found["of_target"][1, 2] == pytest.approx(p[1, 2, tokens[0, CONTEXT + 2]].item())


@pytest.mark.parametrize("arm", ["mask", "baseline"])
def test_models_stack_under_vmap(arm):
    models, tokens = [build(ARMS[arm], seed=s) for s in (0, 1)], torch.stack([windows(0), windows(1)])
    params, _ = stack_module_state(models)
    logits, _ = vmap(lambda p, t: functional_call(models[0], p, (t,)))(params, tokens)
    for i, model in enumerate(models):
        torch.testing.assert_close(logits[i], model(tokens[i])[0], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"start": "answer"}, "ChunkConfig: start='answer' is unknown; choose one of target, mask, last, zeros, noise, shifted"),
        ({"gradient": "first"}, "ChunkConfig: gradient='first' is unknown; choose one of all, last, update"),
        ({"T": 0}, "ChunkConfig: T=0 must be a whole number ≥ 1"),
        ({"n": 1.5}, "ChunkConfig: n=1.5 must be a whole number ≥ 0"),
        ({"noise": -1}, "ChunkConfig: noise=-1 must be a number ≥ 0"),
        ({"heads": 0, "positions": "rotary"}, "ChunkConfig: heads=0 must be a whole number ≥ 1"),
        ({"dropout": 1.0}, "ChunkConfig: dropout=1.0 must be a number from 0 to below 0.999"),
        (
            {"everywhere": True, "encode": False},
            "everywhere needs encode or start='shifted', not 'mask': other slots have no tokens to predict from",
        ),
        ({"whole": True}, "whole needs everywhere without encode: only there are all positions of the window slots"),
        ({"everywhere": True, "loss_passes": "every"}, "everywhere with encode reads one state out, the last: choose loss_passes='last'"),
    ],
)
def test_bad_configs_are_one_clear_line(fields, message):
    with pytest.raises(TrmError) as e:
        ChunkConfig(**fields)
    assert str(e.value) == message


def test_windows_that_do_not_fit():
    model = build(TRM)
    for length in (CHUNK, CONTEXT + CHUNK + 1):
        with pytest.raises(TrmError, match=f"^{length} tokens do not fit a context of 6 and a chunk of 3$"):
            model(windows(length=length))
    with pytest.raises(TrmError, match="only start='shifted' predicts another number of slots"):
        model(windows(), slots=2)
    with pytest.raises(TrmError, match="^a chunk of 7 does not fit: it must lie in 1 … context=6$"):
        ChunkLM(TRM, 30, 6, 7)


def test_the_mean_nll_is_that_of_the_logits_with_its_gradients():
    """Of fewer states than one part and of more, which are read out part by part."""
    torch.manual_seed(0)
    for windows in (4, 40):  # of 15 slots
        model = ChunkLM(ChunkConfig(d=8, heads=2, dropout=0.0, start="shifted", encode=False, causal=True, n=0, T=1), 30, 12, 4)
        ids = torch.randint(0, 30, (windows, 16))
        expected = slot_nll(model(ids, slots=15)[0], ids).mean()
        found = model(ids, slots=15, mean_nll=True)[0]
        assert found.item() == pytest.approx(expected.item(), rel=1e-6)
        of = lambda loss: torch.autograd.grad(loss, list(model.parameters()))  # noqa: B023, E731
        for a, b in zip(of(found), of(expected), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-7)


def test_an_encoder_trained_everywhere_adds_the_nll_of_the_contexts_own_next_tokens():
    """Written out: the causal encoder's read-out of tokens 1 … context, which later tokens do not move, beside the slots' NLL, unchanged."""
    torch.manual_seed(0)
    config = ChunkConfig(d=8, heads=2, dropout=0.0, start="mask", n=2, T=2, gradient="all", everywhere=True)
    model = ChunkLM(config, 30, 12, 4)
    ids = torch.randint(0, 30, (50, 16))  # 600 positions: the fused read-out takes them part by part

    def context_nll(ids):
        x = model.embedding(ids[:, :12]) + model.position.weight[:12]
        for block in model.blocks:
            x = block(x, mask=torch.ones(12, 12, dtype=torch.bool).tril())
        return slot_nll(F.linear(model.norm(x), model.embedding.weight), ids[:, :13])

    expected = slot_nll(model(ids)[0], ids).mean() + context_nll(ids).mean()
    of = lambda loss: torch.autograd.grad(loss, list(model.parameters()))  # noqa: E731
    for fused in (True, False):
        found = model(ids, mean_nll=True, fused=fused)[0]
        assert found.item() == pytest.approx(expected.item(), rel=1e-6)
        for a, b in zip(of(found), of(slot_nll(model(ids)[0], ids).mean() + context_nll(ids).mean()), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)
    other = ids.clone()
    other[:, 8:] = (other[:, 8:] + 1) % 30
    torch.testing.assert_close(context_nll(other)[:, :7], context_nll(ids)[:, :7])
    plain = ChunkLM(replace(config, everywhere=False), 30, 12, 4)
    plain.load_state_dict(model.state_dict())
    assert torch.equal(plain(ids)[0], model(ids)[0])
    assert plain(ids, mean_nll=True)[0].item() == pytest.approx(slot_nll(plain(ids)[0], ids).mean().item(), rel=1e-6)

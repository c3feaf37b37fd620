"""Every arm of the masked model against a plain re-implementation, and what its blanks can see."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from trmlib.errors import TrmError
from trmlib.experiments.masked import MODELS, grid
from trmlib.models.masked import MaskedConfig, MaskedLM

VOCAB, CONTEXT, BATCH = 40, 10, 6
SMALL = MaskedConfig(d=16, heads=2)
ARMS = {
    "baseline": replace(SMALL, passes=0),
    "joint": SMALL,
    "self": replace(SMALL, sees="self"),
    "random": replace(SMALL, sees="random"),
    "context": replace(SMALL, sees="context"),
    "untied": replace(SMALL, tied=False),
    "shared": replace(SMALL, shared=True),
    "self untied": replace(SMALL, sees="self", tied=False),
    "normed": replace(SMALL, normed=True),
    "random shared": replace(SMALL, sees="random", shared=True),
}


def build(config, seed=0, context=CONTEXT):
    """A model in evaluation mode whose every parameter is random (also norms and biases)."""
    torch.manual_seed(seed)
    model = MaskedLM(config, VOCAB, context).eval()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.2 * torch.randn_like(p))
    return model


def question(m=2, seed=0):
    """tokens (b, t), at (b, m) and partners (b, m, m-1): random, partners visible."""
    g = torch.Generator().manual_seed(seed)
    order = torch.rand(BATCH, CONTEXT, generator=g).argsort(1)
    at, visible = order[:, :m].sort(1)[0], order[:, m:]
    partners = torch.stack([visible[:, torch.randperm(CONTEXT - m, generator=g)[: m - 1]] for _ in range(m)], 1)
    tokens = torch.randint(3, VOCAB, (BATCH, CONTEXT), generator=g).scatter(1, at, 1)
    return tokens, at, partners


def reference_block(block, x, normed):
    """The block with PyTorch's own attention, in which every position looks at every other."""
    d = x.shape[-1]
    attention = nn.MultiheadAttention(d, block.attention.heads, batch_first=True)
    attention.load_state_dict({
        "in_proj_weight": block.attention.qkv.weight, "in_proj_bias": block.attention.qkv.bias,
        "out_proj.weight": block.attention.out.weight, "out_proj.bias": block.attention.out.bias,
    })  # fmt: skip
    h = F.layer_norm(x, (d,), block.norm1.weight, block.norm1.bias)
    size = lambda v: v / v.square().mean(-1, keepdim=True).sqrt() if normed else v  # noqa: E731
    x = size(x + attention(h, h, h, need_weights=False)[0])
    h = F.layer_norm(x, (d,), block.norm2.weight, block.norm2.bias)
    return size(x + block.mlp[3](F.gelu(block.mlp[0](h))))


@torch.no_grad()
def reference(model, tokens, at, partners, passes):
    """Logits (b, m, vocab), one window and, where the arm says so, one blank at a time."""
    c, rows = model.config, []
    for b in range(len(tokens)):
        h = (model.embedding.weight[tokens[b]] + model.position.weight)[None]  # (1, t, d)
        for block in model.context_blocks:
            h = reference_block(block, h, c.normed)
        y = h[:, at[b]]  # (1, m, d)
        if c.sees == "random":
            sets = [torch.cat([at[b, i, None], partners[b, i]]) for i in range(at.shape[1])]
        elif c.sees == "self":
            sets = [at[b, i, None] for i in range(at.shape[1])]
        else:
            sets = [at[b]]
        slots = [h[:, s] for s in sets]
        for k in range(passes):
            blocks = model.context_blocks if c.shared else model.refine_blocks
            if not c.tied:
                blocks = blocks[2 * k : 2 * k + 2]
            for block in blocks:
                if c.sees == "context":
                    written = h.clone()
                    written[:, at[b]] = slots[0]
                    slots = [reference_block(block, written, c.normed)[:, at[b]]]
                else:
                    slots = [reference_block(block, s, c.normed) for s in slots]
        y = slots[0] if c.sees in ("joint", "context") else torch.cat([s[:, :1] for s in slots], 1)
        y = F.layer_norm(y, y.shape[-1:], model.norm.weight, model.norm.bias)
        rows.append(y @ model.head.weight.T)
    return torch.cat(rows)


def parameters(model):
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("config, count", [(MaskedConfig(passes=0), 1_678_848), (MaskedConfig(), 2_075_392)])
def test_parameter_counts_of_the_two_headline_models(config, count):
    assert parameters(MaskedLM(config, 5000, 16)) == count


def test_parameter_counts_of_the_other_arms():
    counts = {arm: parameters(MaskedLM(c, 100, 16)) for arm, c in MODELS.items()}
    block = (counts["joint"] - counts["baseline"]) // 2
    assert block == 4 * 128 * 128 + 4 * 128 + 8 * 128 * 128 + 5 * 128 + 4 * 128  # attention, MLP, two norms
    assert counts["shared"] == counts["baseline"]
    assert counts["4-blocks"] == counts["joint"]
    assert counts["6-untied"] == counts["baseline"] + 6 * block
    others = {"self-only", "random-partner", "context", "every-pass", "1-pass", "2-passes", "5-passes", "8-passes"}
    assert {counts[arm] for arm in others} == {counts["joint"]}


@pytest.mark.parametrize("arm", ARMS)
@pytest.mark.parametrize("m", [1, 2, 5])
def test_logits_equal_the_reference(arm, m):
    model, inputs = build(ARMS[arm]), question(m)
    logits = model(*inputs)
    assert logits.shape == (BATCH, m, VOCAB)
    torch.testing.assert_close(logits, reference(model, *inputs, model.config.passes), atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("arm", ARMS)
def test_read_out_after_every_pass_equals_fewer_passes(arm):
    model, inputs = build(ARMS[arm]), question(3)
    every = model(*inputs, every_pass=True)
    assert every.shape == (model.config.passes + 1, BATCH, 3, VOCAB)
    for k, logits in enumerate(every):
        torch.testing.assert_close(logits, model(*inputs, passes=k), atol=1e-6, rtol=1e-5)
    for a, b in zip(every, every[1:], strict=False):
        assert (a - b).abs().max() > 0.05


def test_tied_blocks_take_more_passes_than_were_trained():
    model, inputs = build(ARMS["joint"]), question()
    torch.testing.assert_close(model(*inputs, passes=7), reference(model, *inputs, 7), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("n", [0, 2])
def test_bounded_states_have_unit_size_after_every_pass_and_one_pass_reads_out_the_same(n):
    bounded, free = (build(replace(ARMS["joint"], n=n, bounded=b)) for b in (True, False))
    for passes in (1, 2, 4):
        y, z = bounded(*question(), passes=passes, hand_on=True)[1]
        assert torch.allclose(y.square().mean(-1), torch.ones(()), atol=1e-4)
        assert torch.allclose(z.square().mean(-1), torch.full((), float(n > 0)), atol=1e-4)
    one, two = (bounded(*question(), passes=k) - free(*question(), passes=k) for k in (1, 2))
    assert one.abs().max() < 1e-3 < two.abs().max()  # the read-out has a norm of its own
    # the second pass starts from the scaled states
    y, z = (F.rms_norm(s, s.shape[-1:]) for s in free(*question(), passes=1, hand_on=True)[1])
    torch.testing.assert_close(free(*question(), passes=1, carry=(y, z)), bounded(*question(), passes=2), atol=1e-3, rtol=1e-3)


def test_untied_blocks_refuse_more_passes():
    model = build(ARMS["untied"])
    assert len(model.refine_blocks) == 6
    assert model(*question(), passes=3).shape == (BATCH, 2, VOCAB)
    with pytest.raises(TrmError, match="^this model has blocks for 3 passes, 4 were asked for$"):
        model(*question(), passes=4)


def test_a_baseline_refuses_passes():
    with pytest.raises(TrmError, match="^this model has blocks for 0 passes, 1 were asked for$"):
        build(ARMS["baseline"])(*question(), passes=1)


def logits_after(model, inputs, change):
    """Logits when the encoder's states (b, m or t, d) are changed before the refinement."""
    encode = MaskedLM.encode
    model.encode = lambda tokens, at: change(encode(model, tokens, at).clone())
    try:
        return model(*inputs)
    finally:
        del model.encode


@pytest.mark.parametrize("arm, others_matter", [("joint", True), ("self", False), ("baseline", False)])
def test_what_the_other_blank_does_to_a_blank(arm, others_matter):
    model, inputs = build(ARMS[arm]), question()

    def move_second(h):
        h[:, 1] += torch.randn(h.shape[-1], generator=torch.Generator().manual_seed(3))
        return h

    difference = (model(*inputs) - logits_after(model, inputs, move_second)).abs().amax((0, 2))
    assert difference[1] > 0.1
    assert (difference[0] > 0.01) == others_matter
    if not others_matter:
        assert difference[0] < 1e-5


def test_self_only_equals_each_blank_run_alone():
    model, (tokens, at, _) = build(ARMS["self"]), question(4)
    alone = torch.cat([model(tokens, at[:, i : i + 1]) for i in range(4)], 1)  # the other blanks stay masked
    torch.testing.assert_close(model(tokens, at), alone, atol=1e-5, rtol=1e-5)
    joint = build(ARMS["joint"])
    alone = torch.cat([joint(tokens, at[:, i : i + 1]) for i in range(4)], 1)
    assert (joint(tokens, at) - alone).abs().max() > 0.05


def test_random_partner_sees_itself_and_its_partners_only():
    model, inputs = build(ARMS["random"]), question(3)
    _, at, partners = inputs
    rows, noise = torch.arange(BATCH), torch.randn(16, generator=torch.Generator().manual_seed(3))
    seen = torch.zeros(BATCH, CONTEXT, dtype=torch.bool)
    seen[rows, at[:, 0]] = True
    seen[rows[:, None], partners[:, 0]] = True
    before = model(*inputs)[:, 0]
    unseen_moved = logits_after(model, inputs, lambda h: h + noise * ~seen[..., None])[:, 0]  # the other blanks among them
    torch.testing.assert_close(before, unseen_moved, atol=1e-5, rtol=1e-5)
    for j in range(2):
        only = torch.zeros_like(seen)
        only[rows, partners[:, 0, j]] = True
        moved = logits_after(model, inputs, lambda h, only=only: h + noise * only[..., None])[:, 0]
        assert ((before - moved).abs().amax(1) > 1e-3).all()


def test_other_partners_give_other_logits_but_their_order_does_not_matter():
    model, (tokens, at, partners) = build(ARMS["random"]), question(3)
    before = model(tokens, at, partners)
    torch.testing.assert_close(before, model(tokens, at, partners.flip(2)), atol=1e-5, rtol=1e-5)
    visible = torch.tensor([[p for p in range(CONTEXT) if p not in set(a.tolist())] for a in at])
    other = visible[:, :2][:, None].expand(-1, 3, -1)
    assert not torch.equal(other, partners)
    assert (before - model(tokens, at, other)).abs().max() > 0.01


@pytest.mark.parametrize("arm", ["baseline", "joint", "self", "context", "untied", "shared"])
def test_no_other_arm_reads_the_partners(arm):
    model, (tokens, at, partners) = build(ARMS[arm]), question()
    assert torch.equal(model(tokens, at, partners), model(tokens, at))


@pytest.mark.parametrize("arm", ARMS)
def test_permuting_the_blanks_permutes_the_logits(arm):
    model, (tokens, at, partners) = build(ARMS[arm]), question()
    swapped = model(tokens, at.flip(1), partners.flip(1))
    torch.testing.assert_close(swapped.flip(1), model(tokens, at, partners), atol=1e-5, rtol=1e-5)


def test_every_parameter_of_every_arm_gets_gradient():
    for arm, config in ARMS.items():
        model = build(config)
        model(*question(3)).square().sum().backward()
        for name, p in model.named_parameters():
            assert p.grad is not None and p.grad.abs().max() > 0, f"{arm}: {name}"


def test_dropout_acts_in_training_only():
    model, inputs = build(ARMS["joint"]), question()
    assert torch.equal(model(*inputs), model(*inputs))
    model.train()
    assert (model(*inputs) - model(*inputs)).abs().max() > 0.01


@pytest.mark.parametrize(
    "field, value, message",
    [
        ("sees", "some", "MaskedConfig: sees='some' is unknown; choose one of joint, self, random, context, window, all"),
        ("loss_passes", "first", "MaskedConfig: loss_passes='first' is unknown; choose one of last, every"),
        ("passes", -1, "MaskedConfig: passes=-1 must be a whole number ≥ 0"),
        ("passes", 1.5, "MaskedConfig: passes=1.5 must be a whole number ≥ 0"),
        ("passes", True, "MaskedConfig: passes=True must be a whole number ≥ 0"),
        ("context_blocks", 0, "MaskedConfig: context_blocks=0 must be a whole number ≥ 1"),
        ("n", -1, "MaskedConfig: n=-1 must be a whole number ≥ 0"),
        ("samples", 0, "MaskedConfig: samples=0 must be a whole number ≥ 1"),
        ("dropout", 1, "MaskedConfig: dropout=1 must be a number from 0 to below 0.999"),
        ("tied", 1, "MaskedConfig: tied=1 must be True or False"),
        ("heads", 3, "width d=16 must be a multiple of heads=3"),
    ],
)
def test_bad_config_is_one_line(field, value, message):
    with pytest.raises(TrmError) as e:
        replace(SMALL, **{field: value})
    assert str(e.value) == message


@pytest.mark.parametrize("profile, seeds, headline, steps", [("smoke", 2, 2, 40), ("cpu", 5, 5, 2_000), ("full", 5, 10, 20_000)])
def test_the_grid_names_every_run_once(profile, seeds, headline, steps):
    runs = grid(profile)
    assert len({(r.arm, r.spec.seed) for r in runs}) == len({r.spec.hash for r in runs}) == len(runs)
    found = {arm: [r.spec.seed for r in runs if r.arm == arm] for arm in MODELS}
    for arm, its_seeds in found.items():
        assert its_seeds == list(range(headline if arm in ("baseline", "joint") else seeds))
    assert {(r.spec.train.steps, r.spec.data.min_blanks) for r in runs} == {(steps, 0), (steps // 2, 1)}  # chapter 06 trains half as long
    assert [r.priority for r in runs] == sorted(r.priority for r in runs)
    assert [r.arm for r in runs[: 2 * seeds]] == ["baseline"] * seeds + ["joint"] * seeds

"""What a pass may be: whole windows, re-reading, committed tokens, latent updates, random starts. Each against its written-out form."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from test_masked import BATCH, SMALL, VOCAB, build, question, reference_block
from torch.func import functional_call, vmap

from trmlib.data.synthetic import Dial, Hops
from trmlib.errors import TrmError
from trmlib.evaluate import orders_of, score_blanks, score_joint, weighed
from trmlib.experiments.fill import FillTask, fill_loss, some_blanks
from trmlib.models.masked import MaskedConfig, MaskedLM
from trmlib.runs import Spec, TrainConfig

CLOSE = {"atol": 3e-5, "rtol": 1e-4}
CONTEXT = replace(SMALL, sees="context")


def encoded(model, tokens):
    x = model.embedding.weight[tokens] + model.position.weight
    h = x
    for block in model.context_blocks:
        h = reference_block(block, h, model.config.normed)
    return x, h


def blocks(model, v):
    for block in model.refine_blocks:
        v = reference_block(block, v, model.config.normed)
    return v


def written(model, h, at, v):
    """The blocks on the blanks' vectors v (b, m, d), the rest of the window being read from h, block by block."""
    for block in model.refine_blocks:
        v = pick(reference_block(block, h.scatter(1, at[..., None].expand_as(v), v), model.config.normed), at)
    return v


def pick(h, at):
    return h.gather(1, at[..., None].expand(-1, -1, h.shape[-1]))


def read_out(model, y):
    return F.layer_norm(y, y.shape[-1:], model.norm.weight, model.norm.bias) @ model.head.weight.T


@torch.no_grad()
def test_blanks_that_read_the_window_do_not_see_one_another():
    model, (tokens, at, _) = build(replace(SMALL, sees="window")), question(3)
    h = encoded(model, tokens)[1]
    for i in range(3):
        hidden = [j for j in range(3) if j != i]
        rows = []
        for b in range(BATCH):
            keep = [t for t in range(10) if t not in at[b, hidden]]  # the window without the other blanks
            one = torch.tensor([[keep.index(at[b, i])]])
            v = h[b : b + 1, at[b, i]][None]
            for _ in range(3):
                v = written(model, h[b : b + 1, keep], one, v)
            rows.append(read_out(model, v))
        torch.testing.assert_close(model(tokens, at)[:, i : i + 1], torch.cat(rows), **CLOSE)


@torch.no_grad()
def test_without_an_encoder_the_words_themselves_are_read():
    model, (tokens, at, _) = build(replace(SMALL, sees="context", context_blocks=0)), question()
    x, v = model.embedding.weight[tokens] + model.position.weight, None
    v = pick(x, at)
    for _ in range(3):
        v = written(model, x, at, v)
    torch.testing.assert_close(model(tokens, at), read_out(model, v), **CLOSE)


@pytest.mark.parametrize("rereads", [True, False])
@torch.no_grad()
def test_whole_windows_are_refined(rereads):
    model, (tokens, at, _) = build(replace(SMALL, sees="all", rereads=rereads)), question(3)
    x, v = encoded(model, tokens)
    for _ in range(3):
        v = blocks(model, v + x if rereads else v)
    torch.testing.assert_close(model(tokens, at), read_out(model, pick(v, at)), **CLOSE)
    every = model(tokens, at, every_pass=True)
    torch.testing.assert_close(every[1], model(tokens, at, passes=1), **CLOSE)


@pytest.mark.parametrize("config", [SMALL, CONTEXT])
@torch.no_grad()
def test_committed_tokens_replace_the_vectors(config):
    model, (tokens, at, _) = build(replace(config, state="tokens")), question()
    h = encoded(model, tokens)[1]
    y = pick(h, at)
    for k in range(3):
        y = model.embedding.weight[read_out(model, y).argmax(-1)] if k else y
        y = written(model, h, at, y) if config.sees == "context" else blocks(model, y)
    torch.testing.assert_close(model(tokens, at), read_out(model, y), **CLOSE)
    _, state = model(tokens, at, passes=1, hand_on=True)
    torch.testing.assert_close(model(tokens, at, passes=2, carry=state), read_out(model, y), **CLOSE)  # handed on, then committed


def test_the_gradient_through_a_commitment_is_that_of_the_expected_embedding():
    model = build(replace(SMALL, state="tokens"))
    y, weight = torch.randn(4, 2, 16, requires_grad=True), torch.randn(4, 2, 16)
    (through,) = torch.autograd.grad((model.commit(y) * weight).sum(), y)
    (expected,) = torch.autograd.grad((read_out(model, y).softmax(-1) @ model.embedding.weight * weight).sum(), y)
    torch.testing.assert_close(through, expected)


@pytest.mark.parametrize("sees", ["joint", "context", "all"])
@torch.no_grad()
def test_latent_updates_are_the_papers_recursion(sees):
    model, (tokens, at, _) = build(replace(SMALL, sees=sees, n=2, rereads=sees == "all", passes=2)), question()
    x, h = encoded(model, tokens)
    read = {"joint": lambda v: blocks(model, v), "context": lambda v: written(model, h, at, v), "all": lambda v: blocks(model, v + x)}[sees]
    y = h if sees == "all" else pick(h, at)
    z = torch.zeros_like(y)
    for _ in range(2):
        z = read(y + z)
        z = read(y + z)
        y = blocks(model, y + z)
    torch.testing.assert_close(model(tokens, at), read_out(model, pick(y, at) if sees == "all" else y), **CLOSE)


def test_only_the_last_passes_carry_gradient():
    model, (tokens, at, _) = build(replace(CONTEXT, with_grad=1)), question()

    def grad(logits, of=model):
        return torch.autograd.grad(logits.square().sum(), [of.refine_blocks[0].mlp[0].weight, of.embedding.weight])

    got = grad(model(tokens, at))
    state = model(tokens, at, passes=2, hand_on=True)[1]  # detached
    expected = grad(model(tokens, at, passes=1, carry=state))
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-3)
    whole = build(CONTEXT)
    full = grad(whole(tokens, at), whole)
    assert (full[0] - got[0]).abs().max() > 1e-3 * got[0].abs().max()


@pytest.mark.parametrize("config", [CONTEXT, replace(CONTEXT, n=2), replace(SMALL, sees="all", rereads=True)])
def test_a_state_handed_on_goes_on_where_it_stopped(config):
    model, (tokens, at, _) = build(config), question()
    logits, state = model(tokens, at, passes=1, hand_on=True)
    torch.testing.assert_close(logits, model(tokens, at, passes=1))
    torch.testing.assert_close(model(tokens, at, passes=2, carry=state), model(tokens, at, passes=3), **CLOSE)
    assert not any(s.requires_grad for s in state)


@pytest.mark.parametrize("config", [SMALL, CONTEXT])
@torch.no_grad()
def test_every_random_start_is_a_run_of_its_own(config):
    model, (tokens, at, _) = build(replace(config, samples=3)), question()
    h, logits = encoded(model, tokens)[1], model(tokens, at)
    assert logits.shape == (3, BATCH, 2, VOCAB)
    for k in range(3):
        y = pick(h, at) + model.starts[k, 0, 0]
        for _ in range(3):
            y = written(model, h, at, y) if config.sees == "context" else blocks(model, y)
        torch.testing.assert_close(logits[k], read_out(model, y), **CLOSE)
    assert torch.equal(model.starts, MaskedLM(replace(config, samples=3), VOCAB, 10).starts)  # the same in every model
    assert sum(p.numel() for p in model.parameters()) == sum(p.numel() for p in build(config).parameters())


def test_the_loss_of_random_starts_is_the_joint_log_mean_exp():
    config = replace(SMALL, samples=3, dropout=0.0)
    model, (tokens, at, _) = build(config), question()
    targets = torch.randint(0, VOCAB, at.shape)
    loss, _ = fill_loss(config, model, {"tokens": tokens, "at": at, "targets": targets}, None)
    q = model(tokens, at).softmax(-1).gather(-1, targets.expand(3, -1, -1).unsqueeze(-1)).squeeze(-1)  # (K, b, m)
    torch.testing.assert_close(loss, -q.prod(-1).mean(0).log().mean() / 2)


@pytest.mark.parametrize("change", [{}, {"samples": 3}, {"n": 2, "with_grad": 1}, {"state": "tokens"}, {"sees": "all", "rereads": True}])
def test_seeds_trained_together_give_what_one_gives(change):
    config = replace(CONTEXT, dropout=0.0, **change)
    models, (tokens, at, _) = [build(config, seed=s) for s in range(2)], question()
    batch = {"tokens": tokens, "at": at, "targets": torch.randint(0, VOCAB, at.shape)}
    stacked = {n: torch.stack([m.get_parameter(n) for m in models]) for n, _ in models[0].named_parameters()}

    def one(params):
        return fill_loss(config, lambda *a, **k: functional_call(models[0], params, a, k), batch, None)[0]

    together = vmap(one, randomness="different")(stacked)
    torch.testing.assert_close(together, torch.stack([fill_loss(config, m, batch, None)[0] for m in models]), **CLOSE)


# ---------------------------------------------------------------- joint scores


@pytest.mark.parametrize("samples", [1, 3])
def test_joint_scores_against_all_pairs_of_words(samples):
    language = Dial(symbols=3, shifts=2, doses=(0.5,))
    task = FillTask(Spec("dial", replace(SMALL, samples=samples), language, TrainConfig(), 0))
    torch.manual_seed(3)
    model, vocab = task.model(), language.vocab
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.3 * torch.randn_like(p))
    window = {k: v[:1] for k, v in task.tests[0][0].items()}
    pairs = torch.cartesian_prod(torch.arange(vocab), torch.arange(vocab))
    batch = {k: v.repeat(len(pairs), 1) for k, v in window.items()} | {"targets": pairs}
    s = score_joint(model, batch)
    table = lambda name: np.exp(-s[name]).reshape(vocab, vocab)  # noqa: E731, q(a, b)
    for name in ("parallel", "ab", "ba", "filled"):
        assert table(name).sum() == pytest.approx(1, abs=1e-5)
    for name, coordination in {"parallel": "coordination", "ab": "coordination_ab", "ba": "coordination_ba"}.items():
        q = table(name)
        own = q / q.sum(0) / q.sum(1)[:, None]
        assert np.log(own).ravel() == pytest.approx(s[coordination], abs=2e-4)
    assert table("filled") == pytest.approx((table("ab") + table("ba")) / 2)
    assert (np.abs(s["coordination"]).max() < 1e-5) == (samples == 1)  # a product of marginals coordinates nothing
    assert s["blanks"][:, 0].reshape(vocab, vocab)[:, 0] == pytest.approx(-np.log(table("parallel").sum(1)), abs=1e-4)
    best = np.unravel_index(table("ab").argmax(), (vocab, vocab))
    first = np.exp(-s["blanks"][:, 0]).reshape(vocab, vocab)[:, 0].argmax()
    assert np.flatnonzero(s["right_own"]) == [first * vocab + (table("ab")[first]).argmax()] and best is not None
    for name in ("coordination_ab", "coordination_ba"):
        assert score_joint(model, batch, marginal_words=(vocab, 1))[name] == pytest.approx(s[name])
        some = score_joint(model, {k: v[:5] for k, v in batch.items()}, marginal_words=(3, 200))
        assert some[name] == pytest.approx(s[name][:5], abs=0.1)


def test_an_estimated_marginal_is_unbiased_inside_the_logarithm_whose_own_bias_is_small_and_known():
    """Σ_w q(w) f(w) of 12 words from 4 exact and 3 drawn ones, against the sum; drawn alone it would be far too low where f is large at
    one unlikely word, the right one."""
    rng, rows = torch.Generator().manual_seed(0), 20_000
    q = torch.tensor([0.3, 0.2, 0.15, 0.1, 0.08, 0.05, 0.04, 0.03, 0.02, 0.015, 0.01, 0.005])
    f = torch.tensor([0.01, 0.03, 0.02, 0.01, 0.05, 0.01, 0.02, 0.04, 0.01, 0.02, 0.03, 0.9])
    right = torch.full((rows,), 11)
    words, weight = weighed(q.log().expand(rows, -1), right, (4, 3), rng)
    assert words.shape == weight.shape == (rows, 7) and (words[:, :4].sort(1).values == torch.tensor([0, 1, 2, 11])).all()
    sums, exact = (weight.exp() * f[words]).sum(1), (q * f).sum()
    assert abs(sums.mean() - exact) < 4 * sums.std() / rows**0.5
    assert -0.05 < sums.log().mean() - exact.log() < 0  # Jensen: too low, so that the coordination is too high
    drawn = f[q.expand(rows, -1).multinomial(7, True, generator=rng)].mean(1)
    assert drawn.log().mean() - exact.log() < -0.1
    all_words, all_weights = weighed(q.log().unsqueeze(0), right[:1], None, rng)
    assert (all_weights.exp() * f[all_words]).sum() == pytest.approx(exact.item())


@torch.no_grad()
def test_three_blanks_are_filled_in_every_order():
    model, (tokens, at, _) = build(SMALL), question(3)
    targets = torch.randint(3, VOCAB, at.shape)
    s = score_joint(model, {"tokens": tokens, "at": at, "targets": targets})
    assert orders_of(3) == ["abc", "acb", "bac", "bca", "cab", "cba"] and set(orders_of(3)) < set(s)
    model.eval()
    total, seen, left = torch.zeros(BATCH), tokens.clone(), [0, 1, 2]
    for i in (1, 2, 0):
        logp = model(seen, at[:, left]).log_softmax(-1)[:, left.index(i)]
        total -= logp.gather(1, targets[:, [i]])[:, 0]
        seen = seen.scatter(1, at[:, [i]], targets[:, [i]])
        left.remove(i)
    assert s["bca"] == pytest.approx(total.numpy(), abs=1e-4)
    assert s["filled"] == pytest.approx(-np.log(np.mean([np.exp(-s[o]) for o in orders_of(3)], 0)), abs=1e-4)
    assert s["parallel"] == pytest.approx(s["blanks"].sum(1), abs=1e-4)


def test_scores_of_random_starts_are_those_of_the_mixture():
    model, (tokens, at, _) = build(replace(SMALL, samples=4)), question()
    targets = torch.randint(0, VOCAB, at.shape)
    nll, hit = score_blanks(model, {"tokens": tokens, "at": at, "targets": targets}, chunk=8)
    q = model.eval()(tokens, at).softmax(-1).mean(0)
    assert nll[0] == pytest.approx(-q.gather(-1, targets[..., None])[..., 0].log().detach().numpy(), abs=1e-5)
    assert (hit[0] == (q.argmax(-1) == targets).numpy()).all()


# ---------------------------------------------------------------- the task


def test_training_windows_hide_one_or_two_blanks_and_draw_passes_alike_for_all_seeds():
    spec = Spec("dial", replace(SMALL, random_passes=True), Dial(), TrainConfig(batch=8), 0)
    first, second = (FillTask(spec).batches(seed, 3, 60) for seed in (0, 1))
    assert [b["passes"] for b in first] == [b["passes"] for b in second] and {b["passes"] for b in first} == {1, 2, 3, 4, 5}
    assert [b["at"].shape for b in first] == [b["at"].shape for b in second] and {b["at"].shape[1] for b in first} == {1, 2}
    for b in first:
        hidden = (b["tokens"] == 0).nonzero()[:, 1].view(8, -1)
        assert torch.equal(hidden, b["at"])
    assert not torch.equal(first[0]["targets"], second[0]["targets"])
    again = FillTask(spec).batches(0, 3, 60)
    assert all(torch.equal(a["tokens"], b["tokens"]) for a, b in zip(first, again, strict=True))


def test_shown_blanks_hold_their_words():
    language = Dial(shifts=1)
    batch = {k: torch.from_numpy(v) for k, v in language.draw(np.random.default_rng(0), 30, 4).items()}
    for b in some_blanks([batch] * 20, language, 0, 0, 30):
        if b["at"].shape[1] == 1:
            shown = b["tokens"].gather(1, 5 - b["at"])  # positions 2 and 3
            assert torch.equal(shown, b["targets"])  # one shift (zero) and the full dose: a = b


def test_a_final_record_holds_the_map_over_passes_and_groups():
    language = Hops(length=3, starts=2, trained=(1, 2))
    task = FillTask(Spec("hops", replace(SMALL, sees="window", passes=2), language, TrainConfig(), 0))
    torch.manual_seed(0)
    model = task.model()
    out = task.final(model)
    assert np.shape(out["detail"]["accuracy"]) == np.shape(out["detail"]["nll"]) == (17, 3)
    batch, _ = task.tests[2]
    nll, hit = score_blanks(model, batch, passes=5)
    assert out["detail"]["nll"][5][2] == pytest.approx(nll.mean(), abs=1e-5) and out["detail"]["accuracy"][5][2] == hit.mean()
    assert out["metrics"]["nll_all"] == pytest.approx(np.mean(out["detail"]["nll"][2]))


@pytest.mark.parametrize(
    "config, message",
    [
        ({"context_blocks": 0}, "MaskedConfig: context_blocks=0 must be a whole number ≥ 1"),
        ({"state": "words"}, "MaskedConfig: state='words' is unknown; choose one of latent, tokens"),
        ({"samples": 0}, "MaskedConfig: samples=0 must be a whole number ≥ 1"),
        ({"passes": 0, "samples": 2}, "random starts, latent updates, random numbers of passes and a loss of every pass need passes ≥ 1"),
        ({"passes": 0, "loss_passes": "every"}, "random starts, latent updates, random numbers of passes and a loss of every pass need passes ≥ 1"),
        ({"sees": "self", "n": 2}, "sees='self' goes with samples=1, n=0 and state='latent'"),
        ({"tied": False, "n": 2}, "latent updates and random numbers of passes need tied=True"),
        ({"rereads": True}, "rereads goes with sees='all', not 'joint'"),
        ({"with_grad": 4}, "with_grad=4 must lie in 0 … passes=3"),
    ],
)
def test_bad_configs_are_one_line(config, message):
    with pytest.raises(TrmError) as e:
        MaskedConfig(**config)
    assert str(e.value) == message

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from trmlib.errors import TrmError
from trmlib.models.chunk import ChunkConfig, ChunkLM, slot_nll
from trmlib.probe import alignment, by_refinement, dependency, leaks, refinement_gradients, residual_growth

VOCAB, M = 7, 3
TARGETS = torch.tensor([[0, 1, 2], [3, 4, 5], [6, 0, 1], [2, 2, 2]])


def certain(words):
    """Logits that put all mass on the given words."""
    return 1e4 * F.one_hot(words, VOCAB).double()


def test_a_parallel_predictor_depends_on_nothing():
    logits = torch.randn(len(TARGETS), M, VOCAB, generator=torch.Generator().manual_seed(0))
    matrix = dependency(lambda t: logits, TARGETS, VOCAB)
    assert (matrix == 0).all() and leaks(matrix) == []


def test_copying_the_target_is_a_leak_on_the_whole_diagonal():
    matrix = dependency(certain, TARGETS, VOCAB)
    assert np.allclose(matrix, np.eye(M))  # all mass moves: total variation 1
    assert leaks(matrix) == [(0, 0, 1.0), (1, 1, 1.0), (2, 2, 1.0)]
    assert leaks(matrix, "autoregressive") == leaks(matrix)


def test_left_to_right_may_look_back_only():
    def shifted(t):  # slot i says what slot i - 1 was
        return certain(torch.cat([torch.zeros_like(t[:, :1]), t[:, :-1]], 1))

    matrix = dependency(shifted, TARGETS, VOCAB)
    assert np.allclose(matrix, np.eye(M, k=-1))
    assert leaks(matrix, "autoregressive") == [] and len(leaks(matrix)) == 2


def test_distance_is_total_variation_by_hand():
    def half(t):  # half of the mass on the target, half on word 0
        p = 0.5 * F.one_hot(t, VOCAB).double()
        p[..., 0] += 0.5
        return p.clamp_min(1e-300).log()

    matrix = dependency(half, torch.tensor([[1, 2, 3]]), VOCAB, trials=50)
    assert np.allclose(np.diag(matrix), 0.5)  # half of the mass moves, wherever it goes (word 0 included)


def test_looking_ahead_is_a_leak_for_both_kinds():
    matrix = np.zeros((M, M))
    matrix[0, 2], matrix[2, 0] = 0.3, 0.1
    assert leaks(matrix) == [(0, 2, 0.3), (2, 0, 0.1)]
    assert leaks(matrix, "autoregressive") == [(0, 2, 0.3)]


def test_what_says_nothing_of_leaks_is_refused():
    for matrix, kind, message in [
        (np.zeros((M, M)), "causal", "kind='causal' is unknown; choose one of parallel, autoregressive"),
        (np.full((M, M), math.nan), "parallel", "a dependency matrix of shape (3, 3) with 9 non-finite entries says nothing of leaks"),
        ([[0.0, None], [0.0, 0.0]], "parallel", "a dependency matrix of shape (2, 2) with 1 non-finite entries says nothing of leaks"),
        (np.zeros((0, 0)), "parallel", "a dependency matrix of shape (0, 0) with 0 non-finite entries says nothing of leaks"),
    ]:
        with pytest.raises(TrmError) as e:
            leaks(matrix, kind)
        assert str(e.value) == message
    with pytest.raises(TrmError, match="with 9 non-finite entries says nothing"):
        leaks(dependency(lambda t: torch.full((len(t), M, VOCAB), math.nan), TARGETS, VOCAB))


def test_a_probe_that_replaces_no_word_is_refused():
    for trials, vocab in ((0, VOCAB), (4, 1)):
        with pytest.raises(TrmError, match=f"^trials={trials} must be at least 1, and vocab={vocab} at least 2: no word would be replaced"):
            dependency(certain, TARGETS, vocab, trials)


def test_a_model_in_training_is_refused():
    model, tokens = chunk_model(), torch.randint(VOCAB, (5, 6), generator=torch.Generator().manual_seed(1))
    for layer in model.modules():
        layer.p = 0.5  # of dropout layers
    predict = lambda t: model(torch.cat([tokens[:, :4], t], 1))[0]  # noqa: E731
    assert leaks(dependency(predict, tokens[:, 4:], VOCAB)) == []
    with pytest.raises(TrmError, match="^two predictions for the same targets differ: call model.eval"):
        model.train()
        dependency(predict, tokens[:, 4:], VOCAB)


def test_alignment_by_hand():
    torch.manual_seed(0)
    answer = torch.randn(50, 8)
    settles = alignment(lambda start: (answer,))[0]  # forgets its start
    assert settles["same"] == pytest.approx(1, abs=1e-6) and settles["alignment"] > 0.8
    stays = alignment(lambda start: (answer if start is None else start[0],))[0]  # keeps what it was given
    assert stays["between"] == pytest.approx(1, abs=1e-6) and stays["alignment"] < -0.8


def test_alignment_never_pairs_an_example_with_itself():
    seen = []

    def solve(start):
        ids = torch.arange(20.0).unsqueeze(1)
        seen.append(start)
        return (torch.cat([ids, -ids], 1),)

    alignment(solve)
    assert seen[0] is None and not (seen[1][0][:, 0] == torch.arange(20)).any()
    assert sorted(seen[1][0][:, 0].tolist()) == list(range(20))


def chunk_model(**fields):
    torch.manual_seed(0)
    return ChunkLM(ChunkConfig(d=8, heads=2, dropout=0.0, init=0.3, **fields), VOCAB, context=4, chunk=2).eval()


def block_gradient(model, tokens, **options):
    nll = slot_nll(model(tokens, **options)[0], tokens).mean()
    return torch.cat([g.flatten() for g in torch.autograd.grad(nll, list(model.blocks.parameters()))])


@pytest.mark.parametrize("fields", [{"n": 2}, {"n": 0}, {"n": 2, "bounded": True}])
def test_refinements_add_up_to_the_whole_gradient_and_the_last_is_what_detaching_leaves(fields):
    tokens = torch.randint(VOCAB, (5, 6), generator=torch.Generator().manual_seed(1))
    last = chunk_model(T=3, gradient="last", **fields)
    whole = chunk_model(T=3, gradient="all", **fields)
    rows = refinement_gradients(last, tokens, 3)
    assert torch.allclose(rows.sum(0), block_gradient(whole, tokens), atol=1e-6)
    encoder = block_gradient(chunk_model(T=3, **fields), tokens)
    assert torch.allclose(rows[-1], encoder, atol=1e-6) and rows.norm(dim=1).min() > 0
    assert last.config.gradient == "last"  # the model itself is left as it was


def test_states_of_blocks_that_add_nothing_grow_by_the_eigenvalue():
    tokens = torch.randint(VOCAB, (5, 6), generator=torch.Generator().manual_seed(1))
    for n in (0, 1, 3, 6):
        model = chunk_model(n=n, T=1, start="last")
        with torch.no_grad():
            for block in model.blocks:
                for layer in (block.attention.out, block.mlp[3]):
                    layer.weight.zero_(), layer.bias.zero_()
        size = by_refinement(model, tokens, 6)["size"]
        powers = [np.linalg.matrix_power([[n + 1, 1], [n, 1]], k)[0, 0] for k in range(7)]  # y after k refinements from (y, 0)
        assert np.allclose(size, size[0] * np.array(powers))
        assert size[6] / size[5] == pytest.approx(residual_growth(n), rel=1e-3)
        assert residual_growth(n) == pytest.approx(np.linalg.eigvals([[n + 1, 1], [n, 1]]).real.max())
    bounded = by_refinement(chunk_model(n=3, T=1, bounded=True), tokens, 3)["size"]
    assert np.allclose(bounded[1:], 1, atol=1e-4)

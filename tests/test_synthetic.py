"""The two languages: what they draw, and their optimum by enumeration."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest

from trmlib.data import synthetic
from trmlib.data.synthetic import MASK, Dial, Hops
from trmlib.errors import TrmError
from trmlib.experiments.fill import FillTask
from trmlib.models.masked import MaskedConfig
from trmlib.runs import Spec, TrainConfig

SMALL = Dial(symbols=3, shifts=2, doses=(0.0, 0.4, 1.0))


def entropy(p):
    p = np.asarray(p).ravel()
    return -(p[p > 0] * np.log(p[p > 0])).sum()


@pytest.mark.parametrize("group", range(3))
def test_dial_has_uniform_marginals_and_the_dialled_information(group):
    batch, p = SMALL.test(group)
    assert p.sum() == pytest.approx(1) and len(p) == 2 * 3 * 3
    for shift in range(2):
        table = np.zeros((3, 3))
        rows = batch["tokens"][:, 1] == 1 + 3 + shift
        np.add.at(table, tuple(batch["targets"][rows].T - 1), p[rows] * 2)
        assert table.sum(0) == pytest.approx(1 / 3) and table.sum(1) == pytest.approx(1 / 3)
        information = entropy(table.sum(0)) + entropy(table.sum(1)) - entropy(table)
        assert information == pytest.approx(SMALL.groups[group], abs=1e-9)
        assert SMALL.optimum(group) == pytest.approx({"blank": entropy(table.sum(0)), "joint": entropy(table)}, abs=1e-9)


def test_dial_draws_the_windows_it_tests_with_their_probability():
    drawn, (every, p) = SMALL.draw(np.random.default_rng(0), 40_000, 1), SMALL.test(1)
    key = lambda b: [tuple(r) for r in np.concatenate([b["tokens"], b["targets"]], 1)]  # noqa: E731
    counts = dict.fromkeys(key(every), 0)
    for k in key(drawn):
        counts[k] += 1
    assert np.array(list(counts.values())) / 40_000 == pytest.approx(p, abs=0.008)
    assert (drawn["tokens"][:, 2:] == MASK).all() and (drawn["at"] == [2, 3]).all()
    doses = SMALL.draw(np.random.default_rng(0), 999)["tokens"][:, 0]
    assert set(doses) == {1 + 3 + 2 + d for d in range(3)} and doses.max() == SMALL.vocab - 1


def test_agreement_inverts_the_information():
    for k in (2, 5, 16):
        for dose in (0.01, 0.3 * math.log(k), math.log(k) - 1e-3):
            assert synthetic.shared(synthetic.agreement(dose, k), k) == pytest.approx(dose, abs=1e-9)
        assert synthetic.agreement(0, k) == 1 / k and synthetic.agreement(math.log(k), k) == 1


def follow(window, start):
    """(hops from an element to its end, the end)."""
    e, hops = start, 0
    while window[e] - 1 != e:
        e, hops = window[e] - 1, hops + 1
    return hops, e


def test_hops_windows_are_chains_whose_end_is_k_hops_away():
    language = Hops(length=5, chains=3, starts=4, trained=(1, 3, 5))
    assert (language.elements, language.vocab, language.context, language.blanks) == (18, 19, 22, 4)
    asked = set()
    for group, k in enumerate(language.groups):
        batch = language.draw(np.random.default_rng(group), 50, group)
        for window, at, targets in zip(batch["tokens"], batch["at"], batch["targets"], strict=True):
            ends = {e for e in range(18) if window[e] - 1 == e}
            assert len(ends) == 3 and set(np.bincount([follow(window, e)[1] for e in range(18)])) == {0, 6}  # three chains of six
            assert at.tolist() == [18, 19, 20, 21]
            for start, target in zip(window[at], targets, strict=True):
                assert follow(window, start - 1) == (k, target - 1)
            asked |= {len(set(targets))}
    assert asked == {1, 2, 3}  # the questions of a window are about any of its chains
    drawn = language.draw(np.random.default_rng(9), 300)
    trained = [follow(w, s - 1)[0] for w in drawn["tokens"] for s in w[18:]]
    assert set(trained) == {1, 3, 5} and np.bincount(trained)[[1, 3, 5]] / 1200 == pytest.approx(1 / 3, abs=0.05)


@pytest.mark.parametrize("hop", [1, 2, 3])
def test_exchanged_tails_by_hand(hop):
    """Two chains 0 → 1 → 2 → 3 → 4 and 5 → 6 → 7 → 8 → 9, asked from 1 and 6, three hops from their ends."""
    language = Hops(length=4, chains=2, starts=2, trained=(3,))
    pointers, starts = [1, 2, 3, 4, 4, 6, 7, 8, 9, 9], [1, 6]
    window = {"tokens": 1 + np.array([pointers + starts]), "at": np.array([[10, 11]]), "targets": 1 + np.array([[4, 9]])}
    found = language.exchanged(window, 2, hop)
    expected = list(pointers)
    expected[hop], expected[5 + hop] = 6 + hop, 1 + hop  # hop number 1 leads from 1 to 2, and now to 7
    assert (found["tokens"][0] - 1).tolist() == expected + starts and (found["targets"] - 1).tolist() == [[9, 4]]
    assert (found["at"] == window["at"]).all() and (window["tokens"][0] - 1).tolist() == pointers + starts


def test_exchanging_tails_twice_changes_nothing_and_three_chains_take_turns():
    language, rng = Hops(length=5, chains=2, starts=3, trained=(4,)), np.random.default_rng(0)
    window = language.draw(rng, 20, 3)
    other = language.exchanged(window, 3, 2)
    assert (other["targets"] != window["targets"]).all() and ((other["tokens"] != window["tokens"]).sum(1) == 2).all()
    again = language.exchanged(other, 3, 2)
    assert all((again[name] == window[name]).all() for name in window)
    three = replace(language, chains=3)
    windows = [three.draw(rng, 20, 3)]
    for _ in range(3):
        windows.append(three.exchanged(windows[-1], 3, 1))
    assert all(((w["tokens"] != windows[0]["tokens"]).sum(1) == 3).all() for w in windows[1:3])
    assert all((windows[3][name] == windows[0][name]).all() for name in window)


def test_training_opens_the_lengths_from_the_front():
    language = Hops(length=8, trained=(1, 1, 2, 5), curriculum=0.5)
    opened = {share: language.stage(share).trained for share in (0, 0.12, 0.13, 0.3, 0.4, 0.5, 1)}
    assert opened == {0: (1,), 0.12: (1,), 0.13: (1, 1), 0.3: (1, 1, 2), 0.4: (1, 1, 2, 5), 0.5: (1, 1, 2, 5), 1: (1, 1, 2, 5)}
    assert Hops(curriculum=0).stage(0) == Hops(curriculum=0) and Dial().stage(0.3) == Dial()
    task = FillTask(Spec("hops", MaskedConfig(d=16), language, TrainConfig(steps=8, eval_every=2, batch=4), 0))

    def lengths(block):
        windows = np.concatenate([b["tokens"] for b in task.batches(0, block, 2)])
        return {follow(w, s - 1)[0] for w in windows for s in w[language.elements :]}

    assert lengths(0) == {1} and lengths(1) == {1} and lengths(2) == {1, 2, 5} == lengths(3)


@pytest.mark.parametrize("hops", [0, 1, 2])
def test_hops_optimum_by_enumeration(hops):
    """All permutations of 2 chains of 3: the posterior of the end given the ends and the first `hops` steps from the start."""
    language, k = Hops(length=2, chains=2, trained=(1, 2)), 2
    seen = {}
    for order in itertools.permutations(range(6)):
        chain, other = order[:3], order[3:]
        path = chain[: hops + 1]
        known = (path, frozenset((chain[-1], other[-1])))
        seen.setdefault(known, []).append(chain[-1])
    total = sum(len(v) for v in seen.values())
    nll = sum(-math.log(ends.count(end) / len(ends)) for ends in seen.values() for end in ends) / total
    assert language.optimum(k - 1, hops)["blank"] == pytest.approx(nll) and language.optimum(k - 1)["joint"] == 0


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Hops().exchanged(Hops().test(1)[0], 1, 3), "hop 3 does not lie on a way of 2 hops"),
        (lambda: Hops(length=4, trained=(1, 5)), "k=5 hops do not fit: a chain has 1 … 4"),
        (lambda: Hops(trained=(0,)), "k=0 hops do not fit: a chain has 1 … 16"),
        (lambda: Hops(trained=()), "trained is empty; name at least one number of hops"),
        (lambda: Hops(curriculum=2), "Hops: curriculum=2 must be a number from 0 to 1"),
        (lambda: Hops(chains=0), "Hops: chains=0 must be a whole number ≥ 1"),
        (lambda: Hops(trained=(1.5,)), "k=1.5 hops do not fit: a chain has 1 … 16"),
        (lambda: Dial(doses=("much",)), "doses=('much',) must be shares of log K, numbers from 0 to 1"),
        (lambda: Dial(doses=(0, 1.2)), "a dose of 3.32711 nats lies outside 0 … log K = 2.773 for K=16"),
        (lambda: Dial(doses=(-0.1,)), "a dose of -0.277259 nats lies outside 0 … log K = 2.773 for K=16"),
        (lambda: Dial(shifts=17), "17 shifts of 16 symbols: expected 1 … 16"),
        (lambda: Dial(symbols=0), "Dial: symbols=0 must be a whole number ≥ 2"),
        (lambda: Dial(min_blanks=3), "min_blanks=3 must be 1 or 2"),
    ],
)
def test_bad_languages_are_one_line(make, message):
    with pytest.raises(TrmError) as e:
        make()
    assert str(e.value) == message

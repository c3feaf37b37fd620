"""Two small languages whose best possible predictor is known exactly.

*Dial*: two blanks that are uniform on their own, and share a dialled number of nats given the context.
*Hops*: chains of pointers; the blank is the end of the chain on which the start lies, k hops away.

A reader's own language is one more frozen dataclass that extends `Language`; `experiments.fill.FillTask` trains on it.
"""

import math
from dataclasses import dataclass, replace

import numpy as np
from scipy.optimize import brentq

from trmlib.errors import TrmError, check

MASK = 0  # the one special token; symbols follow it


class Language:
    """What a language has to say; `vocab`, `context` and `draw` are the least.

    draw(rng, rows, group=None)  dict of int arrays: tokens (rows, context) with MASK at the blanks, at (rows, blanks) their
                                 positions, targets (rows, blanks); of one group, or as the model is trained"""

    blanks = 1
    joint = False  # are the blanks of a window also scored together?
    groups = (0,)  # what scores are reported by

    @property
    def min_blanks(self):
        """Training hides min_blanks … blanks of the blanks."""
        return self.blanks

    def stage(self, share):
        """The language that training draws from after a share (0 … 1) of its steps; itself, unless there is a curriculum."""
        return self

    def test(self, group, rows=512):
        """Fixed windows of a group (its index) and their weights (rows,), of sum 1."""
        return self.draw(np.random.default_rng((2025, group)), rows, group), np.full(rows, 1 / rows)

    def optimum(self, group):
        """The lowest expected NLL of a group (its index) in nats, {"blank": of one blank, "joint": of all}, if it is known."""
        return None


@dataclass(frozen=True)
class Dial(Language):
    """Windows [dose, shift c, a, b] over `symbols` K values: a is uniform, b = a + c (mod K) with the probability that
    makes their mutual information the dialled dose, any other value else."""

    symbols: int = 16  # K, values of a blank
    shifts: int = 4  # values of c, so that what the blanks share hangs on the context
    doses: tuple = (0.0, 0.25, 0.5, 0.75, 1.0)  # mutual information of a and b given the context, as shares of log K
    min_blanks: int = 1  # trained on windows with min_blanks … 2 blanks, so that filling one by one is in distribution

    def __post_init__(self):
        check(self, symbols="≥ 2", shifts="≥ 1")
        if self.shifts > self.symbols:
            raise TrmError(f"{self.shifts} shifts of {self.symbols} symbols: expected 1 … {self.symbols}")
        if not all(isinstance(dose, (int, float)) for dose in self.doses):
            raise TrmError(f"doses={self.doses!r} must be shares of log K, numbers from 0 to 1")
        for dose in self.doses:
            agreement(dose * math.log(self.symbols), self.symbols)
        if self.min_blanks not in (1, 2):
            raise TrmError(f"min_blanks={self.min_blanks} must be 1 or 2")

    context = 4
    blanks = 2
    joint = True

    @property
    def vocab(self):
        return 1 + self.symbols + self.shifts + len(self.doses)  # mask, values, shifts, doses

    @property
    def groups(self):
        """The doses in nats."""
        return tuple(d * math.log(self.symbols) for d in self.doses)

    def draw(self, rng, rows, group=None):
        """`rows` windows with both blanks hidden: dict of int arrays tokens (rows, 4), at and targets (rows, 2); of one
        dose (its index) or of doses drawn uniformly."""
        k = self.symbols
        dose = np.full(rows, group) if group is not None else rng.integers(len(self.doses), size=rows)
        p = np.array([agreement(g, k) for g in self.groups])[dose]
        c, a = rng.integers(self.shifts, size=rows), rng.integers(k, size=rows)
        other = 1 + rng.integers(k - 1, size=rows)  # uniform over the K − 1 values that do not agree
        b = (a + c + np.where(rng.random(rows) < p, 0, other)) % k
        return self.windows(dose, c, a, b)

    def windows(self, dose, c, a, b):
        k, hidden = self.symbols, np.full_like(a, MASK)
        return {
            "tokens": np.stack([1 + k + self.shifts + dose, 1 + k + c, hidden, hidden], 1),
            "at": np.tile([2, 3], (len(a), 1)),
            "targets": 1 + np.stack([a, b], 1),
        }

    def test(self, group, rows=None):
        """Every window of a dose with its probability, so that scores are exact expectations."""
        k = self.symbols
        c, a, b = (v.ravel() for v in np.indices((self.shifts, k, k)))
        p, agrees = agreement(self.groups[group], k), b == (a + c) % k
        return self.windows(np.full_like(a, group), c, a, b), np.where(agrees, p, (1 - p) / (k - 1)) / (self.shifts * k)

    def optimum(self, group):
        """The lowest expected NLL at a dose (its index), in nats: {"blank": of one blank, "joint": of both}."""
        k = math.log(self.symbols)
        return {"blank": k, "joint": 2 * k - self.groups[group]}


def shared(p, k):
    """Mutual information in nats of a and b, both uniform over k values, that agree with probability p ≥ 1/k and are
    otherwise any of the k − 1 other pairs: log k − H(b | a)."""
    rest = 0.0 if p >= 1 else (1 - p) * math.log((1 - p) / (k - 1))
    return math.log(k) + p * math.log(p) + rest


def agreement(dose, k):
    """The probability of agreeing at which the mutual information is `dose` nats, 0 … log k."""
    if not -1e-12 <= dose <= math.log(k) + 1e-12:
        raise TrmError(f"a dose of {dose:g} nats lies outside 0 … log K = {math.log(k):.4g} for K={k}")
    if dose >= math.log(k) - 1e-12:
        return 1.0
    return 1 / k if dose <= 1e-12 else float(brentq(lambda p: shared(p, k) - dose, 1 / k, 1))


@dataclass(frozen=True)
class Hops(Language):
    """Windows [pointers of all elements, starts]. A random permutation of the elements is cut into chains of `length` + 1;
    each element points to the next, the last to itself. At every start the end of its chain is to be named.

    The chains look alike, so whoever has not followed all k hops knows only that it is one of the ends. The starts of a
    window are questions of their own: they are asked together to spend less on reading. Training opens `trained` from the
    front: without short ways first, nothing is learnt but the guess of an end."""

    length: int = 16  # the longest way from a start to its end, in hops
    chains: int = 2
    starts: int = 8  # questions a window
    trained: tuple = (1, 1, 1, 2, 2, 2, 3, 3, 4, 4, 6, 6, 8, 8)  # k of the training questions, drawn from these; 1 … length are tested
    curriculum: float = 0.5  # share of training after which all of `trained` is drawn from

    def __post_init__(self):
        check(self, length="≥ 1", chains="≥ 1", starts="≥ 1", curriculum="from 0 to 1")
        for k in self.trained:
            self.check(k)
        if not self.trained:
            raise TrmError("trained is empty; name at least one number of hops")

    @property
    def blanks(self):
        return self.starts

    @property
    def elements(self):
        return self.chains * (self.length + 1)

    @property
    def vocab(self):
        return 1 + self.elements

    @property
    def context(self):
        return self.elements + self.starts

    @property
    def groups(self):
        """The numbers of hops."""
        return tuple(range(1, self.length + 1))

    def check(self, k):
        if not isinstance(k, int) or not 1 <= k <= self.length:
            raise TrmError(f"k={k} hops do not fit: a chain has 1 … {self.length}")

    def draw(self, rng, rows, group=None):
        """`rows` windows: dict of int arrays tokens (rows, context), at and targets (rows, starts); all starts of one k (its
        index in `groups`) or each of a trained one."""
        shape = (rows, self.starts)
        k = np.full(shape, self.groups[group]) if group is not None else rng.choice(np.array(self.trained), shape)
        order = rng.random((rows, self.elements)).argsort(1)  # chain after chain
        chains = order.reshape(rows, self.chains, -1)  # (rows, chains, length + 1)
        after = np.concatenate([chains[..., 1:], chains[..., -1:]], -1).reshape(rows, -1)  # an end points to itself
        pointers = np.empty_like(order)
        np.put_along_axis(pointers, order, after, 1)
        last = rng.integers(self.chains, size=shape) * (self.length + 1) + self.length  # of the chain that is asked for
        start, end = (np.take_along_axis(order, i, 1) for i in (last - k, last))
        at = np.tile(self.elements + np.arange(self.starts), (rows, 1))
        return {"tokens": 1 + np.concatenate([pointers, start], 1), "at": at, "targets": 1 + end}

    def exchanged(self, batch, group, hop):
        """Windows of a group (its index) whose chains exchange their tails: what comes after hop number `hop` (1 … k) of the way from the
        starts is now the next chain's, and so is the end. All chains stay as long as they were, and all hops before that one the same."""
        k, tokens = self.groups[group], batch["tokens"].copy()
        if not 1 <= hop <= k:
            raise TrmError(f"hop {hop} does not lie on a way of {k} hops")
        pointers, starts = tokens[:, : self.elements] - 1, tokens[:, self.elements :] - 1
        at, left = np.tile(np.arange(self.elements), (len(tokens), 1)), np.zeros_like(pointers)
        for _ in range(self.length):  # `left`: hops from each element to its end
            at, before = np.take_along_axis(pointers, at, 1), at
            left += at != before
        last = np.nonzero(left == k - hop + 1)[1].reshape(-1, self.chains)  # of each chain the element that points across the hop
        np.put_along_axis(pointers, last, np.roll(np.take_along_axis(pointers, last, 1), 1, 1), 1)
        at = starts
        for _ in range(k):
            at = np.take_along_axis(pointers, at, 1)
        tokens[:, : self.elements] = 1 + pointers
        return batch | {"tokens": tokens, "targets": 1 + at}

    def stage(self, share):
        done = min(1.0, share / self.curriculum) if self.curriculum else 1.0
        return replace(self, trained=self.trained[: max(1, math.ceil(done * len(self.trained)))])

    def test(self, group, rows=64):
        return super().test(group, rows)

    def optimum(self, group, hops=None):
        """The lowest expected NLL at a k (its index), in nats, for a predictor that follows at most `hops` hops (None: all)."""
        nll = 0.0 if hops is None or hops >= self.groups[group] else math.log(self.chains)
        return {"blank": nll, "joint": nll}

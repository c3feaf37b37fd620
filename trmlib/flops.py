"""What a model costs, counted on one without weights: no corpus and no training is needed."""

from dataclasses import replace
from functools import cache

import torch
from torch.utils.flop_counter import FlopCounterMode

from trmlib.layers import Block, PostNormBlock
from trmlib.models.chunk import ChunkConfig, ChunkLM
from trmlib.models.grid import GridConfig, GridTRM
from trmlib.models.masked import MaskedConfig, MaskedLM

CHARACTERS = 65  # of tinyshakespeare, which need not be at hand
DIGITS = 9  # of a Sudoku


def counted(spec, passes=None, **more):
    """(FLOPs, blocks in series) of one window after so many passes (None: as many as trained), read as `more` says (options of
    `ChunkLM.forward`); of a board, of one supervision step."""
    c, d = spec.model, spec.data
    if isinstance(c, GridConfig):
        same = {"n_width": 0, "T_width": 0, "n_sup": 1, "n_sup_width": 0, "curriculum": False, "milestones": 0, "start": "fixed"}
        (two, _), (four, _) = (_counted(replace(c, n=1, T=T, **same)) for T in (1, 2))  # so many calls of the net
        return two + (c.T * (c.n + 1) - 2) * (four - two) // 2, c.blocks * c.T * (c.n + 1)
    size = d.blanks if isinstance(c, MaskedConfig) else d.chunk
    return _counted(c, getattr(d, "vocab", CHARACTERS), d.context, size, passes=passes, **more)


@cache
def _counted(config, vocab=None, context=None, slots_of=None, **more):
    with torch.device("meta"):
        if isinstance(config, GridConfig):
            model, shapes = GridTRM(config, DIGITS**2, DIGITS), [(DIGITS**2,)]
        elif isinstance(config, MaskedConfig):
            model, shapes = MaskedLM(config, vocab, context), [(context,), (slots_of,), (slots_of, slots_of - 1)]
        else:
            model, shapes = ChunkLM(config, vocab, context, slots_of), [(context + slots_of,)]
    model = model.to_empty(device="cpu").eval()  # counts as on "meta", several times faster
    depth = []
    for block in model.modules():
        if isinstance(block, Block | PostNormBlock):
            block.register_forward_hook(lambda *_: depth.append(1))
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(*(torch.zeros(1, *shape, dtype=torch.long) for shape in shapes), **more)
    return counter.get_total_flops(), len(depth)


def cost(spec, passes):
    """`counted`; from the second pass on each costs the same."""
    if passes < 3 or not getattr(spec.model, "tied", True):
        return counted(spec, passes)
    (one, d1), (two, d2) = counted(spec, 1), counted(spec, 2)
    return one + (passes - 1) * (two - one), d1 + (passes - 1) * (d2 - d1)


def forward(spec):
    """FLOPs of the forward passes of a training step; None of a model that is not of `trmlib.models`."""
    c, d, more = spec.model, spec.data, {}
    if not isinstance(c, ChunkConfig | MaskedConfig | GridConfig):
        return None
    if getattr(c, "everywhere", False):
        more = {"mean_nll": True, "fused": False} if c.encode else {"slots": d.context + d.chunk - 1}
    return spec.train.batch * spec.train.n_sup * counted(spec, **more)[0]

"""The optimisers, each on the one flat tensor of weights (S, N)."""

import math

import torch

from trmlib.errors import TrmError

COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of Newton–Schulz, as in torch.optim.Muon


def optimizer_of(t, weights):
    """The optimiser of a `TrainConfig` for `train.Weights`."""
    if t.optimizer == "adamw":
        return torch.optim.AdamW([weights.w], lr=t.lr, betas=(0.9, t.beta2), weight_decay=t.weight_decay, fused=True)
    hidden = getattr(weights.model, "hidden_matrices", None)
    if hidden is None:
        raise TrmError(f"optimizer='muon' needs a model that names its hidden matrices; {type(weights.model).__name__} does not")
    return Muon(weights.w, weights.views, hidden(), t.lr, t.beta2, t.weight_decay)


class Muon(torch.optim.Optimizer):
    """Muon (Nesterov momentum 0.95, steps as large as AdamW's: torch.optim.Muon with adjust_lr_fn="match_rms_adamw") for the named
    hidden matrices of w (S, N), AdamW for all else, at one learning rate. Written for the flat tensor: `views` maps a flat
    tensor to name → view (S, *shape), and matrices of one shape, of every seed, are orthogonalised together. The momentum and
    AdamW's moments are flat, too, and named as AdamW's."""

    def __init__(self, w, views, hidden, lr, beta2=0.999, weight_decay=0.01, momentum=0.95, eps=1e-8):
        super().__init__([w], {"lr": lr, "beta2": beta2, "weight_decay": weight_decay, "momentum": momentum, "eps": eps})
        self.views, self.shapes = views, {}
        for name in hidden:
            self.shapes.setdefault(views(w.detach())[name].shape[1:], []).append(name)
        self.other = torch.ones_like(w.detach())
        for name in hidden:
            views(self.other)[name].zero_()

    @torch.no_grad()
    def step(self):
        (group,), (w,) = self.param_groups, self.param_groups[0]["params"]
        state, lr, beta = self.state[w], group["lr"], group["beta2"]
        if not state:
            state.update(step=torch.tensor(0.0), exp_avg=torch.zeros_like(w), exp_avg_sq=torch.zeros_like(w))
        state["step"] += 1
        m, v, g, done = state["exp_avg"], state["exp_avg_sq"], w.grad, state["step"].item()
        m.lerp_(g, 1 - self.other * 0.9 - (1 - self.other) * group["momentum"])
        v.lerp_(g.square(), 1 - beta)
        w.mul_(1 - lr * group["weight_decay"])
        update = m / ((v / (1 - beta**done)).sqrt_().add_(group["eps"]) * (1 - 0.9**done))
        look = self.views(g.lerp(m, group["momentum"]))
        views = self.views(update)
        for shape, names in self.shapes.items():
            orthogonal = orthogonalised(torch.stack([look[n] for n in names]))  # (matrices, S, *shape)
            for n, o in zip(names, orthogonal, strict=True):
                views[n].copy_(o.mul_(0.2 * math.sqrt(max(shape))))
        w.sub_(update, alpha=lr)


def orthogonalised(x, steps=5):
    """About U Vᵀ of matrices x = U S Vᵀ (…, rows, columns), by Newton–Schulz in bf16 (singular values end up near 1)."""
    a, b, c = COEFFICIENTS
    tall = x.shape[-2] > x.shape[-1]
    o = (x.mT if tall else x).bfloat16()
    o = o / o.norm(dim=(-2, -1), keepdim=True).clamp(min=1e-7)
    for _ in range(steps):
        gram = o @ o.mT
        o = a * o + (b * gram + c * (gram @ gram)) @ o
    return (o.mT if tall else o).to(x.dtype)

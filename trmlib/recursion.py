"""The idea itself, in the paper's symbols.

x  the embedded question      (b, t, d)
y  the current answer         (b, t, d)
z  the latent reasoning state (b, t, d)
n  latent updates per answer update
T  recursions per supervision step, of which the last `with_grad` carry gradient

Source: Jolicoeur-Martineau, "Less is More: Recursive Reasoning with Tiny Networks",
arXiv 2510.04871, Figure 3. Nothing here knows about tasks, heads or losses.
"""

import torch


def latent_recursion(net, x, y, z, n, with_grad=None):
    """Update z `n` times from (x, y, z), then y once from (y, z): n + 1 calls of `net`.

    With `with_grad`, only the last so many updates of z, and the one of y, carry gradient."""
    if n < 0:
        raise ValueError(f"n must be ≥ 0, got {n}")
    if with_grad is not None and with_grad < 0:
        raise ValueError(f"with_grad must be ≥ 0, got {with_grad}")
    free = 0 if with_grad is None else max(0, n - with_grad)
    with torch.no_grad():
        for _ in range(free):
            z = net(x, y, z)
    for _ in range(n - free):
        z = net(x, y, z)
    y = net(y, z)
    return y, z


def deep_recursion(net, x, y, z, n, T, with_grad=1, updates=None, single=False):
    """Run `latent_recursion` T times, only the last `with_grad` of them with gradient (paper: 1), and of these only the last
    `updates` latent updates (1: the one-step gradient). With a `single` latent, z goes on from the answer."""
    if not 1 <= with_grad <= T:
        raise ValueError(f"with_grad must lie in 1..T={T}, got {with_grad}")
    with torch.no_grad():
        for _ in range(T - with_grad):
            y, z = latent_recursion(net, x, y, y if single else z, n)
    for _ in range(with_grad):
        y, z = latent_recursion(net, x, y, y if single else z, n, updates)
    return y, z


def refine(step, y, passes):
    """Apply `step(y, k)` for k = 0 … passes-1; return all states [y_0, y_1, …, y_passes]."""
    states = [y]
    for k in range(passes):
        states.append(step(states[-1], k))
    return states

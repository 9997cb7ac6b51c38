"""The equations of the Game of Regularizer and of the other balancers.

Let L_i be the task and the distillation loss (i = T, K), m_i their means at
the start, theta_i their trainable scalars and w_i = exp(-theta_i). The game's
potential is

    J = sum_i (w_i L_i / m_i + theta_i),   dJ/dtheta_i = 1 - w_i L_i / m_i,

so each player rests at w_i = m_i / L_i, and none gains by driving a weight to
zero or to infinity. All tensors have shape (2, ): task first.

For the other balancers n_i is the norm of loss i's gradient g_i at the shared
features and c the cosine between the two. Gradient surgery's direction is
w_T g_T + w_K g_K; with two losses both weights follow from n_T, n_K and c
alone. Where a method fixes the sum of its weights, they sum to 2 here, also
where the paper's sum to 1: equal losses then get (1, 1), and a learning rate
means the same for all.
"""

import torch
from torch import Tensor

# Below the smallest difference of two gradients that float32 can tell.
TINY = 1e-12


def weights_of(theta: Tensor) -> Tensor:
    """w = exp(-theta)."""
    return torch.exp(-theta)


def zero_sum_weights(theta: Tensor) -> Tensor:
    """u_i = 2 w_i / (w_T + w_K): in (0, 2), summing to 2.

    Example:
        >>> zero_sum_weights(torch.zeros(2))
        tensor([1., 1.])
    """
    return 2 * torch.softmax(-theta, 0)


def ratio_weights(theta: Tensor) -> Tensor:
    """(1, 2 w_K / w_T): the task's weight stays 1.

    At rest the weighted distillation loss is twice the task loss, both in
    units of their start. Twice, since the best fixed weights on three data
    sets came to that or a little less (docs/results/comparison.md).

    Example:
        >>> ratio_weights(torch.zeros(2))
        tensor([1., 2.])
    """
    ratio = 2 * torch.exp(theta[0] - theta[1])
    return torch.stack([torch.ones_like(ratio), ratio])


def theta_gradient(theta: Tensor, strength: Tensor) -> Tensor:
    """dJ/dtheta = 1 - w * strength, bounded to [-1, 1].

    The bound only acts where a strength is more than twice its reference
    exp(theta): a spike of one batch then moves theta no further than a
    vanishing loss does. A non-finite strength gives 0: theta stays.

    Args:
        theta (Tensor): Shape (2, ).
        strength (Tensor): What the game is over: the losses, or the norms of
            their gradients, per unit. Shape (2, ), not negative.

    Example:
        At the start both losses are 1, and the thetas rest at 0. Then the
        distillation loss falls to a half, and its theta has to fall.

        >>> theta_gradient(torch.zeros(2), torch.tensor([1.0, 0.5]))
        tensor([0.0000, 0.5000])
    """
    gradient = (1 - weights_of(theta) * strength).clamp(min=-1)
    return torch.where(torch.isfinite(gradient), gradient, 0.0)


def attach_gradient(theta: Tensor, gradient: Tensor) -> Tensor:
    """A scalar of value 0 whose gradient to ``theta`` is ``gradient``."""
    term = (theta * gradient.detach()).sum()
    return term - term.detach()


def running_mean(
    mean: Tensor, value: Tensor, count: Tensor, momentum: float
) -> Tensor:
    """Exponential mean that starts as a plain one; skips non-finite values.

    Args:
        mean (Tensor): Mean so far, shape (2, ).
        value (Tensor): New values, shape (2, ).
        count (Tensor): Values seen before these, shape (2, ).
        momentum (float): Least share of the new value.
    """
    share = torch.clamp(1.0 / (count + 1), min=momentum)
    return torch.where(
        torch.isfinite(value), mean + share * (value - mean), mean
    )


def distance(theta: Tensor, reference: Tensor) -> Tensor:
    """How far theta is from its resting point log(reference), in nats.

    The reference is a mean strength as in :func:`theta_gradient`.
    """
    return theta - torch.log(reference)


def usable(values: Tensor) -> Tensor:
    """Whether all are finite and positive, shape ()."""
    return (torch.isfinite(values) & (values > 0)).all()


def precision_weights(theta: Tensor) -> Tensor:
    """w = 1 / (2 sigma^2), with theta = log(sigma)."""
    return 0.5 * torch.exp(-2 * theta)


def uncertainty_gradient(theta: Tensor, losses: Tensor) -> Tensor:
    """d/dtheta of L / (2 sigma^2) + log(sigma), theta = log(sigma).

    1 - L / sigma^2, bounded to [-1, 1] as :func:`theta_gradient` is: at rest
    sigma^2 = L.
    """
    return theta_gradient(2 * theta, losses)


def revised_uncertainty_gradient(theta: Tensor, losses: Tensor) -> Tensor:
    """As above for L / (2 sigma^2) + log(1 + sigma^2), over its second part.

    With s = sigma^2 the two parts' slopes are -L / s and 2 s / (1 + s); their
    quotient makes 1 - L (1 + s) / (2 s^2). Sign and zero are the gradient's,
    but it does not vanish with s, where theta would creep.
    """
    variance = torch.exp(2 * theta)
    strength = losses * (1 + variance) / (2 * variance)
    return theta_gradient(2 * theta, strength)


def inverse_loss_weights(losses: Tensor, temperature: float) -> Tensor:
    """w = 2 softmax(1 / (L temperature))."""
    return 2 * torch.softmax(1 / (losses * temperature), 0)


def descent_weights(
    last: Tensor, before: Tensor, temperature: float
) -> Tensor:
    """w = 2 softmax(r / temperature), r the mean losses' ratio.

    Args:
        last (Tensor): Mean losses of the last window, shape (2, ).
        before (Tensor): Those of the window before it, shape (2, ).
        temperature (float): Positive.
    """
    return 2 * torch.softmax(last / before / temperature, 0)


def geometric_mean_weights(losses: Tensor) -> Tensor:
    """The gradient of sqrt(L_T L_K) to the losses: sqrt(L_other / L) / 2."""
    return 0.5 * torch.sqrt(losses.flip(0) / losses)


def famo_weights(theta: Tensor, losses: Tensor) -> Tensor:
    """w ~ z / L, summing to 2, with z = softmax(-theta)."""
    weights = torch.softmax(-theta, 0) / losses
    return 2 * weights / weights.sum()


def famo_gradient(theta: Tensor, decrease: Tensor, decay: float) -> Tensor:
    """decay theta - J decrease, J_ij = z_i (1[i = j] - z_j).

    Args:
        theta (Tensor): The negated logits, shape (2, ).
        decrease (Tensor): Of the log losses in a step, shape (2, ).
        decay (float): The paper's gamma.
    """
    share = torch.softmax(-theta, 0)
    return decay * theta - share * (decrease - (share * decrease).sum())


def adam_step(
    gradient: Tensor, moments: Tensor, count: Tensor
) -> tuple[Tensor, Tensor]:
    """Adam's step for a learning rate of 1 (Kingma & Ba, algorithm 1).

    Args:
        gradient (Tensor): Shape (2, ).
        moments (Tensor): First and second so far, shape (2, 2).
        count (Tensor): Steps with this one, shape ().

    Returns:
        tuple[Tensor, Tensor]: The step to subtract, shape (2, ), and the new
        moments.
    """
    first = 0.9 * moments[0] + 0.1 * gradient
    second = 0.999 * moments[1] + 0.001 * gradient**2
    size = (second / (1 - 0.999**count)).sqrt() + 1e-8
    return first / (1 - 0.9**count) / size, torch.stack([first, second])


def gradnorm_gradient(
    weights: Tensor,
    norms: Tensor,
    losses: Tensor,
    first: Tensor,
    alpha: float,
) -> Tensor:
    """d/dtheta of ``sum_i |G_i - m r_i^alpha|`` over m; w = 2 softmax(-theta).

    G_i = w_i n_i with the mean m, held fixed in the target, and r_i is the
    relative inverse training rate, L_i / first_i over its mean. With
    dw_i / dtheta_j = -w_i (1[i = j] - w_j / 2), the slopes s_i = -w_i n_i
    sign(G_i - m r_i^alpha) make s_j - w_j / 2 (s_T + s_K): 0 where both are
    on the same side of their targets and the norms are equal.

    Returns:
        Tensor: Shape (2, ), in [-2, 2].
    """
    sizes = weights * norms
    mean = sizes.mean()
    rates = losses / first
    target = mean * (rates / rates.mean()) ** alpha
    slopes = -(sizes / mean) * torch.sign(sizes - target)
    return slopes - weights / weights.sum() * slopes.sum()


def imtl_g_weights(norms: Tensor) -> Tensor:
    """w_i ~ 1 / n_i, summing to 2: equal projections on both gradients.

    (w_T g_T + w_K g_K) . (g_T / n_T - g_K / n_K) = 0 makes
    (w_T n_T - w_K n_K) (1 - c) = 0, whatever c is.
    """
    return 2 * norms.flip(0) / norms.sum()


def pcgrad_weights(norms: Tensor, cosine: Tensor) -> Tensor:
    """w_T = 1 - c n_K / n_T where c < 0, else 1; w_K likewise.

    The sum of both gradients, each without its part along the other.
    """
    return 1 - cosine.clamp(max=0) * norms.flip(0) / norms


def mgda_weights(norms: Tensor, cosine: Tensor) -> Tensor:
    """2 (x, 1 - x), x in [0, 1] with the shortest x g_T + (1 - x) g_K.

    x : (1 - x) as n_K^2 - k : n_T^2 - k, neither below 0, k = c n_T n_K.
    Equal gradients get (1, 1).
    """
    a, b, inner, span = _gram(norms, cosine)
    shares = (torch.stack([b, a]) - inner).clamp(min=0)
    return torch.where(span > TINY, 2 * shares / shares.sum(), 1.0)


def cagrad_weights(norms: Tensor, cosine: Tensor, radius: float) -> Tensor:
    """The direction within a ball around the mean that serves both best.

    The direction is 2 d with ``d = g_0 + s g_w / |g_w|``. Here g_0 is the mean
    gradient, ``s = radius |g_0|`` and g_w = x g_T + (1 - x) g_K, where x in
    [0, 1] minimises the dual ``f(x) = g_w . g_0 + s |g_w|``. Its first part is
    linear with the slope p = (n_T^2 - n_K^2) / 2. In the second,
    ``|g_w|^2 = A (x - x_0)^2 + D``. So f is flat at
    x = x_0 - p sqrt(D / (A (s^2 A - p^2))). If s^2 A <= p^2 it is flat
    nowhere, and x is 0 or 1.

    Args:
        norms (Tensor): Shape (2, ), positive.
        cosine (Tensor): Shape ().
        radius (float): The paper's c, in [0, 1): 0 gives (1, 1).
    """
    a, b, inner, span = _gram(norms, cosine)
    size = radius * (a + b + 2 * inner).clamp(min=0).sqrt() / 2
    slope = (a - b) / 2
    height = (a * b - inner**2).clamp(min=0) / span
    room = (span * (size**2 * span - slope**2)).clamp(min=0)
    flat = (b - inner) / span - slope * (height / room).sqrt()
    share = torch.where(
        (room > 0) & (span > TINY),
        flat.clamp(0, 1),
        0.5 - 0.5 * torch.sign(slope),
    )
    shares = torch.stack([share, 1 - share])
    mixed = shares[0] ** 2 * a + shares[1] ** 2 * b
    length = (mixed + 2 * shares[0] * shares[1] * inner).clamp(min=0).sqrt()
    return 1 + 2 * size * shares / length.clamp(min=TINY)


def _gram(norms: Tensor, cosine: Tensor) -> tuple[Tensor, ...]:
    """|g_T|^2, |g_K|^2, g_T . g_K and |g_T - g_K|^2 (at least TINY), with the
    longer gradient as the unit of length."""
    a, b = (norms / norms.max()) ** 2
    inner = cosine * (a * b).sqrt()
    return a, b, inner, (a + b - 2 * inner).clamp(min=TINY)

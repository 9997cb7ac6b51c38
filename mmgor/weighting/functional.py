"""The equations of all balancers: the Game of Regularizer and the others.

The Game of Regularizer: let L_i be the task and the distillation loss
(i = T, K), m_i its mean at the start of training, theta_i its trainable scalar
and w_i = exp(-theta_i). The game's potential is

    J = sum_i (w_i L_i / m_i + theta_i),   dJ/dtheta_i = 1 - w_i L_i / m_i.

Each player comes to rest at w_i = m_i / L_i, and neither gains by driving its
weight to zero or to infinity.

The other balancers: n_i is the norm of g_i, the gradient of loss i at the
shared features, and c is the cosine between the two. Methods that combine
gradients descend w_T g_T + w_K g_K; for two losses, both weights are functions
of n_T, n_K and c alone. Where a method fixes the sum of its weights, they sum
to 2 here, even if the paper's sum to 1: equal losses then get (1, 1), and a
learning rate means the same for every balancer.

A tensor of shape (2, ) has the task's value first.
"""

import torch
from torch import Tensor

# Less than the smallest difference of two gradients that float32 resolves.
TINY = 1e-12


def weights_of(theta: Tensor) -> Tensor:
    """w = exp(-theta), shape (2, )."""
    return torch.exp(-theta)


def zero_sum_weights(theta: Tensor) -> Tensor:
    """u_i = 2 w_i / (w_T + w_K), each in (0, 2); they sum to 2.

    Example:
        >>> zero_sum_weights(torch.tensor([1.0, 3.0]).log())  # w = (1, 1/3)
        tensor([1.5000, 0.5000])
    """
    return 2 * torch.softmax(-theta, 0)


def ratio_weights(theta: Tensor) -> Tensor:
    """(1, 2 w_K / w_T): the weight of the task loss stays 1.

    At rest the weighted distillation loss is twice the task loss, each
    relative to its mean at the start. The factor is 2 because the best fixed
    weights on three data sets gave about that ratio or a little less
    (docs/results/comparison.md).

    Example:
        >>> ratio_weights(torch.zeros(2))
        tensor([1., 2.])
    """
    ratio = 2 * torch.exp(theta[0] - theta[1])
    return torch.stack([torch.ones_like(ratio), ratio])


def theta_gradient(theta: Tensor, strength: Tensor) -> Tensor:
    """dJ/dtheta = 1 - w * strength, bounded to [-1, 1].

    The bound acts only where a strength is more than twice exp(theta), the
    value at which theta would rest. A spike of one batch then moves theta no
    further than a vanishing loss does. Where the strength is not finite the
    gradient is 0, so theta stays.

    Args:
        theta (Tensor): Shape (2, ).
        strength (Tensor): What the game is played over: the losses, or the
            norms of their gradients, relative to their means at the start.
            Shape (2, ), not negative.

    Example:
        At the start both losses are 1, and the thetas rest at 0. Then the
        distillation loss falls to a half, and its theta has to fall.

        >>> theta_gradient(torch.zeros(2), torch.tensor([1.0, 0.5]))
        tensor([0.0000, 0.5000])
    """
    gradient = (1 - weights_of(theta) * strength).clamp(min=-1)
    return torch.where(torch.isfinite(gradient), gradient, 0.0)


def attach_gradient(theta: Tensor, gradient: Tensor) -> Tensor:
    """A scalar of value 0 whose gradient at ``theta`` is ``gradient``."""
    term = (theta * gradient.detach()).sum()
    return term - term.detach()


def running_mean(
    mean: Tensor, value: Tensor, count: Tensor, momentum: float
) -> Tensor:
    """Update a running mean; values that are not finite are skipped.

    The first 1 / ``momentum`` values count alike; then the mean decays
    exponentially.

    Args:
        mean (Tensor): Mean so far, shape (2, ).
        value (Tensor): New values, shape (2, ).
        count (Tensor): How many values the mean has seen, shape (2, ).
        momentum (float): Smallest share that a new value gets.
    """
    share = torch.clamp(1.0 / (count + 1), min=momentum)
    return torch.where(
        torch.isfinite(value), mean + share * (value - mean), mean
    )


def distance(theta: Tensor, reference: Tensor) -> Tensor:
    """How far theta is from where it would rest, log(reference), in nats.

    Args:
        theta (Tensor): Shape (2, ).
        reference (Tensor): Mean of the strengths that :func:`theta_gradient`
            takes, shape (2, ).
    """
    return theta - torch.log(reference)


def usable(values: Tensor) -> Tensor:
    """Whether all values are finite and positive, shape ()."""
    return (torch.isfinite(values) & (values > 0)).all()


def precision_weights(theta: Tensor) -> Tensor:
    """w = 1 / (2 sigma^2), with theta = log(sigma)."""
    return 0.5 * torch.exp(-2 * theta)


def uncertainty_gradient(theta: Tensor, losses: Tensor) -> Tensor:
    """d/dtheta of L / (2 sigma^2) + log(sigma), with theta = log(sigma).

    It is 1 - L / sigma^2, bounded to [-1, 1] as in :func:`theta_gradient`. At
    rest sigma^2 = L.
    """
    return theta_gradient(2 * theta, losses)


def revised_uncertainty_gradient(theta: Tensor, losses: Tensor) -> Tensor:
    """d/dtheta of L / (2 sigma^2) + log(1 + sigma^2), over its second part.

    With s = sigma^2 the slopes of the two terms are -L / s and 2 s / (1 + s).
    Their sum divided by the second is 1 - L (1 + s) / (2 s^2): it has the sign
    and the zero of the gradient but does not vanish with s, where theta would
    hardly move. Bounded to [-1, 1] as in :func:`theta_gradient`.
    """
    variance = torch.exp(2 * theta)
    strength = losses * (1 + variance) / (2 * variance)
    return theta_gradient(2 * theta, strength)


def inverse_loss_weights(losses: Tensor, temperature: float) -> Tensor:
    """w = 2 softmax(1 / (L * temperature))."""
    return 2 * torch.softmax(1 / (losses * temperature), 0)


def descent_weights(
    last: Tensor, before: Tensor, temperature: float
) -> Tensor:
    """w = 2 softmax(r / temperature), with r = last / before.

    Args:
        last (Tensor): Mean losses of the last window, shape (2, ).
        before (Tensor): Mean losses of the window before, shape (2, ).
        temperature (float): Positive.
    """
    return 2 * torch.softmax(last / before / temperature, 0)


def geometric_mean_weights(losses: Tensor) -> Tensor:
    """The derivatives of sqrt(L_T L_K): sqrt(L_other / L) / 2."""
    return 0.5 * torch.sqrt(losses.flip(0) / losses)


def famo_weights(theta: Tensor, losses: Tensor) -> Tensor:
    """w proportional to z / L, with z = softmax(-theta); they sum to 2."""
    weights = torch.softmax(-theta, 0) / losses
    return 2 * weights / weights.sum()


def famo_gradient(theta: Tensor, decrease: Tensor, decay: float) -> Tensor:
    """decay * theta - J decrease, where J_ij = z_i (1[i = j] - z_j).

    Args:
        theta (Tensor): The negated logits, shape (2, ).
        decrease (Tensor): How much the log losses fell in a step, shape
            (2, ).
        decay (float): The paper's gamma.
    """
    share = torch.softmax(-theta, 0)
    return decay * theta - share * (decrease - (share * decrease).sum())


def adam_step(
    gradient: Tensor, moments: Tensor, count: Tensor
) -> tuple[Tensor, Tensor]:
    """Adam's step at a learning rate of 1 (Kingma & Ba, algorithm 1).

    Args:
        gradient (Tensor): Shape (2, ).
        moments (Tensor): First and second moment so far, shape (2, 2).
        count (Tensor): Number of steps, including this one, shape ().

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
    """d/dtheta of ``sum_i |G_i - m r_i^alpha|``, divided by m.

    G_i = w_i n_i are the weighted norms, with w = 2 softmax(-theta), and m is
    their mean, a constant in the target m r_i^alpha. r_i is the relative
    inverse training rate: L_i / first_i divided by its mean over i. With
    dw_i / dtheta_j = -w_i (1[i = j] - w_j / 2) and the slopes
    s_i = -G_i sign(G_i - m r_i^alpha), the result is
    s_j - w_j / 2 (s_T + s_K), divided by m. It is 0 where n_T = n_K and both
    G_i are on the same side of their targets.

    Args:
        weights (Tensor): w, shape (2, ).
        norms (Tensor): n, shape (2, ).
        losses (Tensor): L, shape (2, ).
        first (Tensor): The losses of the first step, shape (2, ).
        alpha (float): The paper's alpha.

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
    """w_i proportional to 1 / n_i; they sum to 2.

    The direction then has equal projections on both unit gradients:
    (w_T g_T + w_K g_K) . (g_T / n_T - g_K / n_K) = 0 means
    (w_T n_T - w_K n_K) (1 - c) = 0, so c does not matter.
    """
    return 2 * norms.flip(0) / norms.sum()


def pcgrad_weights(norms: Tensor, cosine: Tensor) -> Tensor:
    """w_T = 1 - c n_K / n_T where c < 0, else 1; w_K likewise.

    The direction is the sum of both gradients, each without its component
    along the other.

    Example:
        >>> pcgrad_weights(torch.tensor([1.0, 2.0]), torch.tensor(-0.5))
        tensor([2.0000, 1.2500])
    """
    return 1 - cosine.clamp(max=0) * norms.flip(0) / norms


def mgda_weights(norms: Tensor, cosine: Tensor) -> Tensor:
    """2 (x, 1 - x), with the x in [0, 1] of the shortest x g_T + (1 - x) g_K.

    x : (1 - x) = max(n_K^2 - k, 0) : max(n_T^2 - k, 0), with k = c n_T n_K.
    Equal gradients get (1, 1).
    """
    a, b, inner, span = _gram(norms, cosine)
    shares = (torch.stack([b, a]) - inner).clamp(min=0)
    return torch.where(span > TINY, 2 * shares / shares.sum(), 1.0)


def cagrad_weights(norms: Tensor, cosine: Tensor, radius: float) -> Tensor:
    """Weights of the best direction in a ball around the mean gradient.

    The best direction d maximises the smaller of d . g_T and d . g_K. It is
    ``d = g_0 + s g_w / |g_w|``, with the mean gradient g_0, ``s = radius
    |g_0|`` and g_w = x g_T + (1 - x) g_K, where x in [0, 1] minimises the dual
    ``f(x) = g_w . g_0 + s |g_w|``. The first term is linear in x with the
    slope p = (n_T^2 - n_K^2) / 2; in the second, ``|g_w|^2 = A (x - x_0)^2 +
    D``. So f has slope 0 at x = x_0 - p sqrt(D / (A (s^2 A - p^2))). If s^2 A
    <= p^2 there is no such point, and x is 0 or 1.

    Args:
        norms (Tensor): Shape (2, ), positive.
        cosine (Tensor): Shape ().
        radius (float): The paper's c, in [0, 1); 0 gives (1, 1).

    Returns:
        Tensor: The coefficients of g_T and g_K in 2 d, shape (2, ).
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
    """|g_T|^2, |g_K|^2, g_T . g_K and |g_T - g_K|^2 (at least TINY).

    All are relative to the squared length of the longer gradient.
    """
    a, b = (norms / norms.max()) ** 2
    inner = cosine * (a * b).sqrt()
    return a, b, inner, (a + b - 2 * inner).clamp(min=TINY)

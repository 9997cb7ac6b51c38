"""Fuse the class probabilities of several teachers into one target.

In every function, ``known`` is a bool tensor that says which of the K classes
each of the M teachers knows. Its shape is (M, ..., K), with 1 for every axis
of locations; K is 1 if all teachers know all classes. Weights sum to 1 over
the teachers that know a class. They are 0 for a class that no teacher knows.
"""

import math

import torch
from torch import Tensor, nn

from mmgor.io.config_values import choice, integer

KINDS = ('mean', 'confidence', 'learned')


def covered_classes(known: Tensor) -> Tensor:
    """Classes that at least one teacher knows.

    Args:
        known (Tensor): Shape (M, ..., K).

    Returns:
        Tensor: Bool, shape (..., K).
    """
    return known.any(0)


def certainty(probabilities: Tensor) -> Tensor:
    """Certainty 1 - H(p) / ln 2 of the largest class probability p.

    H is the binary entropy in nats. The certainty is 1 for p = 0 and p = 1,
    where it is clear whether there is an object, and 0 for p = 1/2.

    Args:
        probabilities (Tensor): Of foreground classes, shape (..., K).

    Returns:
        Tensor: In [0, 1], shape (...), in float32 or higher precision.

    Example:
        >>> certainty(torch.tensor([[0.0, 0.5], [0.0, 1.0], [0.0, 0.0]]))
        tensor([0., 1., 1.])
    """
    largest = probabilities.amax(-1)
    # With p = (1 + d) / 2: 1 - H(p) / ln 2 has no exact digits near d = 0.
    d = 2 * largest.to(torch.promote_types(largest.dtype, torch.float)) - 1
    gain = torch.special.xlog1py(1 + d, d) + torch.special.xlog1py(1 - d, -d)
    return (gain / (2 * math.log(2))).clamp(0, 1)


def equal_weights(known: Tensor) -> Tensor:
    """Equal weights: 1 / number of teachers that know the class.

    Args:
        known (Tensor): Shape (M, ..., K).

    Returns:
        Tensor: Shape (M, ..., K).
    """
    return known / known.sum(0).clamp(min=1)


def proportional_weights(strength: Tensor, known: Tensor) -> Tensor:
    """Weights in proportion to ``strength``; equal ones if all are 0.

    Args:
        strength (Tensor): Not negative, shape (M, ..., 1).
        known (Tensor): Shape (M, ..., K).

    Returns:
        Tensor: Shape (M, ..., K).
    """
    share = strength * known
    total = share.sum(0)
    tiny = torch.finfo(share.dtype).tiny
    return torch.where(
        total > 0, share / total.clamp(min=tiny), equal_weights(known)
    )


def softmax_weights(logits: Tensor, known: Tensor) -> Tensor:
    """Softmax of ``logits`` over the teachers that know the class.

    Args:
        logits (Tensor): Shape (M, ).
        known (Tensor): Shape (M, ..., K).

    Returns:
        Tensor: Shape of ``known``.
    """
    column = logits.view(-1, *[1] * (known.dim() - 1))
    lowest = torch.finfo(logits.dtype).min
    # For a class that no teacher knows, softmax gives 1 / M, not 0.
    return column.masked_fill(~known, lowest).softmax(0) * known


def mean_weights(weights: Tensor, known: Tensor) -> Tensor:
    """Mean weight of each teacher over locations and covered classes.

    Args:
        weights (Tensor): Shape (M, ..., K), or 1 for an axis along which the
            weights are equal.
        known (Tensor): Shape (M, ..., K).

    Returns:
        Tensor: Shape (M, ), without gradient.
    """
    shape = (len(weights), -1, weights.shape[-1])
    each = weights.detach().reshape(shape).mean(1).sum(-1)
    return each / covered_classes(known).sum().clamp(min=1)


def kl_to_uniform(logits: Tensor) -> Tensor:
    """KL(w || uniform) = sum w ln w + ln M, with w = softmax(logits).

    Args:
        logits (Tensor): Shape (M, ).

    Returns:
        Tensor: Scalar, not negative.
    """
    log_weights = logits.log_softmax(0)
    return (log_weights.exp() * log_weights).sum() + math.log(len(logits))


class TeacherFusion(nn.Module):
    """Weighted mean of the probabilities of M teachers.

    - ``'mean'``: all teachers have the same weight.
    - ``'confidence'``: at each location the weights are in proportion to
      :func:`certainty`.
    - ``'learned'``: the weights are the softmax of one trainable scalar per
      teacher, ``logits``, which start equal. Their gradient comes through the
      fused target. That gradient alone would give all weight to the teacher
      nearest to the student, so :meth:`regularizer` must be added to the
      loss.

    Args:
        kind (str): One of the above.
        num_teachers (int): M >= 1.

    Raises:
        ValueError: If an argument is out of range.
    """

    def __init__(self, kind: str, num_teachers: int) -> None:
        super().__init__()
        self.kind = choice('fusion', kind, KINDS)
        self.num_teachers = integer('num_teachers', num_teachers, 1)
        if kind == 'learned':
            self.logits = nn.Parameter(torch.zeros(num_teachers))

    def forward(
        self, probabilities: Tensor, known: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Fuse each class over the teachers that know it.

        Args:
            probabilities (Tensor): Of the foreground classes (sigmoid), in
                the same layout for all teachers, shape (M, ..., K). Values of
                classes that a teacher does not know are ignored.
            known (Tensor, optional): The classes that each teacher knows,
                bool, shape (M, K). None: all teachers know all classes.

        Returns:
            tuple[Tensor, Tensor]: Fused probabilities (..., K), and for the
            log :func:`mean_weights` of the teachers (M, ). A class that no
            teacher knows is 0 everywhere; mask it with
            :func:`covered_classes`.

        Raises:
            ValueError: If shapes do not match.
        """
        self._check(probabilities, known)
        shape = (len(probabilities), *[1] * (probabilities.dim() - 2), -1)
        if known is None:
            known = probabilities.new_ones(shape[0], 1, dtype=torch.bool)
            known = known.view(shape)
        else:
            known = known.to(probabilities.device).view(shape)
            # Not a product with 0: an unknown value may be NaN.
            probabilities = probabilities.masked_fill(~known, 0)
        weights = self._weights(probabilities, known)
        fused = (weights * probabilities).sum(0)
        return fused, mean_weights(weights, known)

    def regularizer(self, kd_loss: Tensor) -> Tensor:
        """A scalar of value 0 whose gradient keeps learned weights above 0.

        Its gradient is that of kd_loss * KL(w || uniform), with w =
        softmax(logits) and ``kd_loss`` held fixed. Since grad L + L grad KL
        = L grad(ln L + KL), the weights descend

            ln L(w) + KL(w || uniform).

        A factor on the loss does not change this, and as a weight goes to 0
        the slope away from 0 grows without bound. For L = sum_i w_i L_i the
        weights come to rest at w_i proportional to exp(-L_i / L). This is
        implicit in L. For two teachers it has one solution; with d =
        ln(w_1 / w_2) it is

            L_2 / L_1 = 1 + d (1 + e^d) / (1 + e^d - d).

        Args:
            kd_loss (Tensor): The loss on the fused target, a scalar, not
                negative, with the same factors as the loss whose gradient
                reaches the logits. The simplest way is to add the result to
                ``kd_loss`` before it is multiplied by anything.

        Returns:
            Tensor: The scalar 0, without gradient unless ``kind`` is
            ``'learned'``.
        """
        if self.kind != 'learned':
            return kd_loss.new_zeros(())
        term = kd_loss.detach() * kl_to_uniform(self.logits)
        return term - term.detach()

    def _weights(self, probabilities: Tensor, known: Tensor) -> Tensor:
        """Weights (M, ..., K), or 1 for an axis along which they are equal."""
        if self.kind == 'mean':
            return equal_weights(known)
        if self.kind == 'learned':
            return softmax_weights(self.logits, known)
        strength = certainty(probabilities)[..., None]
        return proportional_weights(strength, known)

    def _check(self, probabilities: Tensor, known: Tensor | None) -> None:
        shape = tuple(probabilities.shape)
        if len(shape) < 2 or shape[0] != self.num_teachers:
            raise ValueError(
                'expected probabilities of shape (teachers, ..., classes) '
                f'with {self.num_teachers} teachers, got {shape}. Stack one '
                'entry for each teacher: torch.stack(probabilities).'
            )
        expected = (shape[0], shape[-1])
        if known is None:
            return
        if tuple(known.shape) != expected or known.dtype != torch.bool:
            raise ValueError(
                f'expected known of shape {expected} (teachers, classes) and '
                f'dtype torch.bool, got {tuple(known.shape)} and '
                f'{known.dtype}. known=None means that all teachers know all '
                'classes.'
            )

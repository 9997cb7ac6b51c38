"""One target out of several teachers' class probabilities.

``known`` tells which of the K classes each of the M teachers has, as a bool
tensor of shape (M, ..., K) with 1 for every axis of locations; K = 1 where
all teachers have all classes. Weights sum to 1 over the teachers that know a
class; they are 0 for a class that no teacher knows.
"""

import math

import torch
from torch import Tensor, nn

from mmgor.io.config_values import choice, integer

KINDS = ('mean', 'confidence', 'learned')


def covered_classes(known: Tensor) -> Tensor:
    """Classes that at least one teacher knows: (M, ..., K) to (..., K)."""
    return known.any(0)


def certainty(probabilities: Tensor) -> Tensor:
    """1 - H(p) / ln 2 of the largest probability p, H the binary entropy in
    nats: 1 where it is certain that there is, or is not, an object, 0 at 1/2.

    Args:
        probabilities (Tensor): Foreground, shape (..., K).

    Returns:
        Tensor: In [0, 1], float32 at least, shape (...).
    """
    largest = probabilities.amax(-1)
    # With p = (1 + d) / 2; differences of entropies would be noise near 0.
    d = 2 * largest.to(torch.promote_types(largest.dtype, torch.float)) - 1
    gain = torch.special.xlog1py(1 + d, d) + torch.special.xlog1py(1 - d, -d)
    return (gain / (2 * math.log(2))).clamp(0, 1)


def equal_weights(known: Tensor) -> Tensor:
    """1 / (teachers that know the class): shape of ``known``."""
    return known / known.sum(0).clamp(min=1)


def proportional_weights(strength: Tensor, known: Tensor) -> Tensor:
    """``strength`` normalised over the teachers, equal where all are 0.

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
    # The product is for classes nobody knows: there softmax gives 1 / M.
    return column.masked_fill(~known, lowest).softmax(0) * known


def mean_weights(weights: Tensor, known: Tensor) -> Tensor:
    """Mean over locations and covered classes, shape (M, ), no gradient."""
    shape = (len(weights), -1, weights.shape[-1])
    each = weights.detach().reshape(shape).mean(1).sum(-1)
    return each / covered_classes(known).sum().clamp(min=1)


def kl_to_uniform(logits: Tensor) -> Tensor:
    """KL(softmax(logits) || uniform) = sum w ln w + ln M, scalar."""
    log_weights = logits.log_softmax(0)
    return (log_weights.exp() * log_weights).sum() + math.log(len(logits))


class TeacherFusion(nn.Module):
    """Weighted mean of the probabilities of M teachers.

    - ``'mean'``: all teachers weigh the same.
    - ``'confidence'``: at each location in proportion to
      :func:`certainty`.
    - ``'learned'``: softmax of one trainable scalar a teacher, ``logits``,
      which start equal. The gradient comes through the fused target; alone
      it would collapse onto the teacher that is nearest to the student, so
      :meth:`regularizer` belongs to the loss.

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
        """Fuse; a class is fused over the teachers that know it.

        Args:
            probabilities (Tensor): Of the foreground classes (sigmoid), in
                one layout, shape (M, ..., K). Values of classes that a
                teacher does not know are not looked at.
            known (Tensor, optional): The classes each teacher knows, bool,
                shape (M, K). None: all know all.

        Returns:
            tuple[Tensor, Tensor]: Fused probabilities (..., K), and for the
            log each teacher's weight (M, ), the mean over locations and
            covered classes, without gradient. A class that no teacher knows
            is 0 throughout; drop it by ``known.any(0)``
            (:func:`covered_classes`).

        Raises:
            ValueError: If shapes do not fit.
        """
        self._check(probabilities, known)
        shape = (len(probabilities), *[1] * (probabilities.dim() - 2), -1)
        if known is None:
            known = probabilities.new_ones(shape[0], 1, dtype=torch.bool)
            known = known.view(shape)
        else:
            known = known.to(probabilities.device).view(shape)
            # Not a product with 0: what is unknown may be nan.
            probabilities = probabilities.masked_fill(~known, 0)
        weights = self._weights(probabilities, known)
        fused = (weights * probabilities).sum(0)
        return fused, mean_weights(weights, known)

    def regularizer(self, kd_loss: Tensor) -> Tensor:
        """A scalar of value 0 that keeps learned weights off the corners.

        Its gradient is that of kd_loss * KL(w || uniform), w =
        softmax(logits), with ``kd_loss`` held fixed. Since grad L + L grad KL
        = L grad(ln L + KL), the weights descend

            ln L(w) + KL(w || uniform)

        which no factor on the loss changes, and whose slope towards the
        inside is infinite where a weight is 0. For L = sum_i w_i L_i they
        rest at w_i proportional to exp(-L_i / L). This is implicit in L; for
        two teachers it has one solution, and in d = ln(w_1 / w_2) reads

            L_2 / L_1 = 1 + d (1 + e^d) / (1 + e^d - d).

        Args:
            kd_loss (Tensor): The loss on the fused target, not negative,
                multiplied by the same factors as where the gradient of the
                logits comes from. Simplest: add the result to ``kd_loss``
                before anything weighs it.

        Returns:
            Tensor: 0; without gradient unless ``kind`` is ``'learned'``.
        """
        if self.kind != 'learned':
            return kd_loss.new_zeros(())
        term = kd_loss.detach() * kl_to_uniform(self.logits)
        return term - term.detach()

    def _weights(self, probabilities: Tensor, known: Tensor) -> Tensor:
        """Shape (M, ..., K), or 1 where an axis makes no difference."""
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

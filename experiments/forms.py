"""Ways of weighing that are tried in experiments/plans/power.yaml.

What wins there belongs into mmgor. Nothing here is supported.
"""

from typing import Any

import torch
from mmengine.optim import OptimWrapper
from mmengine.registry import OPTIM_WRAPPERS, OPTIMIZERS
from torch import Tensor

from mmgor.distillation.heads.scores import ScoreKDHead
from mmgor.registry import MODELS
from mmgor.weighting import FixedWeighting, GoRWeighting
from mmgor.weighting.base import total_loss


@MODELS.register_module()
class StakeWeighting(GoRWeighting):
    """GoR's form ratio, whose stake in the distillation loss moves from
    ``first`` to ``last`` along half a cosine over ``steps`` calls.

    With J = sum_i (w_i L_i / m_i + s_i theta_i) the scalars rest at
    w_i = s_i m_i / L_i. Its ratio is that of the game with equal stakes,
    times s_K / s_T.
    """

    def __init__(
        self, first: float, last: float, steps: int, **kwargs: Any
    ) -> None:
        super().__init__(form='ratio', **kwargs)
        self.ends, self.steps = (first, last), steps

    def weigh(self, losses: Tensor, gradients: Any) -> tuple[Tensor, Tensor]:
        first, last = self.ends
        done = (self.calls / self.steps).clamp(max=1)
        share = 0.5 - 0.5 * torch.cos(torch.pi * done)
        stake = first + (last - first) * share
        weights, own = super().weigh(losses, gradients)
        # Form 'ratio' has a stake of 2.
        return torch.stack([weights[0], weights[1] * stake / 2]), own


@MODELS.register_module()
class PlacedScoreKDHead(ScoreKDHead):
    """Locations weigh sigmoid((u - threshold) / width) times the teacher's
    score, with mean 1 over the teacher's score.

    Args:
        by (str): u is the teacher's 'certainty' |2 p - 1|, or the
            'disagreement' max_k |p_k - q_k| with the student's scores q.
    """

    def __init__(
        self, by: str, threshold: float, width: float, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.by, self.threshold, self.width = by, threshold, width

    def _mean_kl(
        self, s: Tensor, t: Tensor, kept: Tensor, over_ranks: bool = True
    ) -> Tensor:
        self._student = s.detach().sigmoid() * kept.to(s.dtype)
        return super()._mean_kl(s, t, kept, over_ranks)

    def _weights(self, scores: Tensor) -> Tensor:
        if self.by == 'certainty':
            u = (2 * scores.amax(-1) - 1).abs()
        else:
            u = (scores - self._student).abs().amax(-1)
        place = torch.sigmoid((u - self.threshold) / self.width)
        return super()._weights(scores) * place


@MODELS.register_module()
class ApartWeighting(FixedWeighting):
    """Fixed weights; keeps the two weighted losses for TwoMomentaWrapper."""

    last: tuple[Tensor, Tensor] | None = None

    def forward(self, task: dict, kd: dict, shared: Any = ()) -> dict:
        losses = super().forward(task, kd, shared)
        ApartWeighting.last = (
            total_loss({k: losses[k] for k in task}),
            total_loss({k: losses[k] for k in kd}),
        )
        return losses


@OPTIM_WRAPPERS.register_module()
class TwoMomentaWrapper(OptimWrapper):
    """Computes the gradients of the two losses apart.

    It needs ``clip_grad`` and does not accumulate gradients.
    """

    def update_params(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        assert ApartWeighting.last is not None
        task, kd = ApartWeighting.last
        ApartWeighting.last = None
        parameters = [
            p
            for group in self.optimizer.param_groups
            for p in group['params']
            if p.requires_grad
        ]
        of_kd = torch.autograd.grad(
            kd, parameters, retain_graph=True, allow_unused=True
        )
        task.backward()
        for p, g in zip(parameters, of_kd):
            if g is None and p.grad is None:
                continue
            g = torch.zeros_like(p) if g is None else g
            if p.grad is None:
                p.grad = torch.zeros_like(p)
            p.grad += g
            p.kd_grad = g
        norm = torch.nn.utils.clip_grad_norm_(
            parameters, **self.clip_grad_kwargs
        )
        shrunk = (self.clip_grad_kwargs['max_norm'] / norm).clamp(max=1)
        for p in parameters:
            if hasattr(p, 'kd_grad'):
                p.kd_grad *= shrunk
        self.message_hub.update_scalar('train/grad_norm', float(norm))
        self.optimizer.step()  # not step(), which clips again
        self.zero_grad()


@OPTIMIZERS.register_module()
class TwoMomentaAdamW(torch.optim.Optimizer):
    """AdamW whose first moment forgets the distillation loss's gradient at
    another rate (after Zhao et al., "DOT", ICCV 2023, which is for SGD).
    """

    def __init__(
        self,
        params: Any,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        kd_beta: float = 0.9,
        weight_decay: float = 0.05,
    ) -> None:
        super().__init__(
            params,
            dict(lr=lr, betas=betas, kd_beta=kd_beta)
            | dict(weight_decay=weight_decay),
        )

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            b1, b2 = group['betas']
            bk = group['kd_beta']
            for p in group['params']:
                if p.grad is None:
                    continue
                kd = getattr(p, 'kd_grad', torch.zeros_like(p))
                state = self.state[p]
                if not state:
                    state['n'] = 0
                    for key in 'tkv':
                        state[key] = torch.zeros_like(p)
                state['n'] += 1
                n = state['n']
                state['t'].lerp_(p.grad - kd, 1 - b1)
                state['k'].lerp_(kd, 1 - bk)
                state['v'].lerp_(p.grad**2, 1 - b2)
                first = state['t'] / (1 - b1**n) + state['k'] / (1 - bk**n)
                size = (state['v'] / (1 - b2**n)).sqrt() + 1e-8
                p.mul_(1 - group['lr'] * group['weight_decay'])
                p.add_(first / size, alpha=-group['lr'])

"""Watches the game: its parameters, its log, its curves."""

import math
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import Tensor

from mmgor.io.checkpoint import RESUME_HINT
from mmgor.io.class_names import dataset_classes
from mmgor.io.config_values import integer, number
from mmgor.registry import HOOKS
from mmgor.weighting.theta_steps import default_theta_lr, move_thetas

from .optimizer_groups import exempt_in_runner
from .student import unwrapped_model
from .teacher_metrics import verify_teachers
from .training_batches import check_batches
from .weight_plot import plot_weight_curves, read_scalars

_PREFIX = 'gor_weighting.'
_FUSION = 'fusion.logits'
#: Iterations between two looks at the weights, each of which makes the host
#: wait. Fewer than NonFiniteLossHook's default lets pass before it stops.
LOOK_EVERY = 5
_WATCHED = ('gor_w_task', 'gor_w_kd', 'gor_raw_task', 'gor_raw_kd')


@HOOKS.register_module()
class GoRWeightHook(Hook):
    """Lets the thetas play, logs and checks the weights.

    The detector puts effective weights, thetas and raw losses under
    ``gor_*`` into its outputs, from where mmengine writes them to the console
    line, ``scalars.json`` and TensorBoard; ``loss_*`` there are the weighted
    losses. This hook

    - makes sure that the balancer's thetas are in the optimizer, without
      weight decay;
    - moves them, whenever the optimizer steps, by plain gradient descent at
      ``theta_lr``: their gradient is bounded by 1 and vanishes at the resting
      point, so that momentum would overshoot and Adam's normalisation never
      come to rest, and warm-up, clipping and loss scaling would slow the game
      down by factors that have nothing to do with it. It arrives within a
      few per cent of the run with any optimizer;
    - maps each teacher's classes to the student's by name;
    - measures, every ``gradient_interval`` iterations, the norm ratio and
      the cosine of the two weighted gradients at the detector's
      ``gradient_tap`` (costs two backward passes through the head);
    - warns when a weight collapses (one set by hand to 0 does not) or a value
      is not finite, after the first iteration or within five;
    - draws ``gor_weights.png`` at the end of training.

    Args:
        theta_lr (float, optional): Default: the balancer's own, if it has
            one, else 60 / optimizer steps of the run, in [0.02, 0.3].
        gradient_interval (int): 0 measures nothing.
        num_verify_images (int): Before training, log each teacher's metrics
            on this many evaluation images, which go through the student's
            pipeline and the teacher's data_preprocessor. 0: do not.
        collapse (float): Warn when the smaller weighted loss's share of the
            sum is below this.
        verify_teacher (None): The old name of ``num_verify_images``.

    Raises:
        TypeError: If ``verify_teacher`` is given.
        ValueError: If an argument is out of range.
    """

    priority = 'LOW'

    def __init__(
        self,
        theta_lr: float | None = None,
        gradient_interval: int = 0,
        num_verify_images: int = 0,
        collapse: float = 1e-3,
        *,
        verify_teacher: None = None,
    ) -> None:
        if verify_teacher is not None:
            raise TypeError(
                'GoRWeightHook: verify_teacher has another name now; expected '
                f'num_verify_images={verify_teacher!r}.'
            )
        self.theta_lr = theta_lr
        if theta_lr is not None:
            self.theta_lr = number('theta_lr', theta_lr, '(0, inf)')
        self.gradient_interval = integer(
            'gradient_interval', gradient_interval, 0
        )
        self.num_verify_images = integer(
            'num_verify_images', num_verify_images, 0
        )
        self.collapse = number('collapse', collapse, '(0, 0.5)')
        self._registered = ExitStack()
        self._start_anew()

    def _start_anew(self) -> None:
        """Forget an earlier training, which an error may have ended."""
        self._registered.close()
        self._warned = False
        self._by_hand = False
        self._first = True
        # Iterations and their values, on the device.
        self._unseen: list[tuple[int, Tensor]] = []

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Write down who teaches: learned weights go by position."""
        teachers = kd_teachers(unwrapped_model(runner))
        checkpoint['meta']['kd_teachers'] = teachers

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Let weights of another run start a game of their own.

        Only a resumed run goes on with its file's thetas, counters and learned
        weights of the teachers; others would start without their balanced
        start, or with weights of other teachers.

        Raises:
            ValueError: If a resumed file's KD heads had other teachers.
        """
        state_dict = checkpoint.get('state_dict', checkpoint)
        if runner._resume:
            own = kd_teachers(unwrapped_model(runner))
            theirs = checkpoint.get('meta', {}).get('kd_teachers', own)
            if theirs != own:
                raise ValueError(
                    'resume from a file of other teachers: expected kd_heads '
                    f'that learn from {own}, got {theirs}. {RESUME_HINT}'
                )
            return
        for key in list(state_dict):
            if key.startswith(_PREFIX) or key.endswith(_FUSION):
                del state_dict[key]

    def before_run(self, runner: Runner) -> None:
        """Take weight decay off thetas and learned weights of teachers."""
        self._keep_scalars(runner)

    def before_train(self, runner: Runner) -> None:
        """Check parameters and classes, take over the thetas' steps.

        Raises:
            RuntimeError: If the model has no weighting, or the optimizer
                does not hold its parameters as it should.
            ValueError: If a teacher knows none of the student's classes.
        """
        self._start_anew()
        model = unwrapped_model(runner)
        if not hasattr(model, 'gor_weighting'):
            raise RuntimeError(
                "GoRWeightHook expected a model of type 'GoRDetector' with a "
                f'gor_weighting, got {type(model).__name__}. Set model=dict('
                "type='GoRDetector', detector=<stock type>, ...) or remove "
                'the hook.'
            )
        map_classes(runner, model)
        if self.num_verify_images:
            verify_teachers(runner, model, self.num_verify_images)
        check_batches(runner)
        self._keep_scalars(runner)
        # A balancer that learns, measures or counts has state to save.
        self._by_hand = not model.gor_weighting.state_dict()
        thetas = dict(model.gor_weighting.named_parameters())
        if not thetas:  # nothing to learn
            return
        self._move_thetas(runner, model.gor_weighting)

    def _move_thetas(self, runner: Runner, weighting: Any) -> None:
        """Let them move until training ends."""
        wrapper = runner.optim_wrapper
        steps = runner.max_iters / wrapper._accumulative_counts
        rate = self.theta_lr or default_theta_lr(weighting, steps)
        for handle in move_thetas(weighting, wrapper.optimizer, rate):
            self._registered.callback(handle.remove)
        weighting.moved_by_hook = True
        self._registered.callback(setattr, weighting, 'moved_by_hook', False)

    def _keep_scalars(self, runner: Runner) -> None:
        named = dict(unwrapped_model(runner).named_parameters())
        fusions = {k: v for k, v in named.items() if k.endswith(_FUSION)}
        thetas = {k: v for k, v in named.items() if k.startswith(_PREFIX)}
        exempt_in_runner(
            runner, fusions, 'the learned weights of the teachers'
        )
        exempt_in_runner(runner, thetas, "the balancer's thetas")

    def before_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None
    ) -> None:
        interval = self.gradient_interval
        if interval and runner.iter % interval == 0:
            unwrapped_model(runner).gor_weighting.measure_gradients = True

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: dict | None = None,
    ) -> None:
        outputs = outputs or {}
        if 'gor_w_task' not in outputs or self._warned:
            return
        values = torch.stack([outputs[name].float() for name in _WATCHED])
        self._unseen.append((runner.iter + 1, values))
        if self._first or len(self._unseen) == LOOK_EVERY:
            self._look(runner)
        self._first = False

    def _look(self, runner: Runner) -> None:
        """Warn of the first collapse among what was not looked at yet."""
        unseen, self._unseen = self._unseen, []
        if not unseen:
            return
        rows = torch.stack([values for _, values in unseen]).tolist()
        for (iteration, _), row in zip(unseen, rows):
            if not self._warned:
                self._warn_of_collapse(runner, iteration, row)

    def _warn_of_collapse(
        self, runner: Runner, iteration: int, values: list[float]
    ) -> None:
        weights, raw = values[:2], values[2:]
        # Weights alone have the inverse of the losses' units.
        task, kd = (w * x for w, x in zip(weights, raw))
        total = task + kd
        if math.isfinite(total) and total != 0:
            meant = self._by_hand and 0 in weights
            if meant or min(task, kd) / total >= self.collapse:
                return
        self._warned = True
        runner.logger.warning(
            f'weighted losses at iteration {iteration}: task {task:.3g}, '
            f'distillation {kd:.3g}. The smaller has less than '
            f'{self.collapse:g} of the sum, so that only the other is '
            'trained, or one is not finite (said once).'
        )

    def after_train(self, runner: Runner) -> None:
        self._registered.close()
        self._look(runner)
        if not is_main_process():
            return
        scalars = Path(runner.log_dir) / 'vis_data' / 'scalars.json'
        if not scalars.is_file():
            runner.logger.warning(
                f'no {scalars}: weight curves not drawn; '
                'expected visualizer.vis_backends=[dict(type='
                "'LocalVisBackend')].",
            )
            return
        try:
            path = plot_weight_curves(
                read_scalars(scalars),
                Path(runner.work_dir) / 'gor_weights.png',
            )
        except ValueError as error:  # a finished training must not fail here
            runner.logger.warning(f'weight curves not drawn: {error}')
            return
        runner.logger.info(f'Weight curves: {path}')


def kd_teachers(model: Any) -> dict[str, list[str]]:
    """Name of each KD head -> names of its teachers, in their order."""
    heads = getattr(model, 'kd_heads', {})
    return {name: list(head.teachers) for name, head in heads.items()}


def map_classes(runner: Runner, model: Any) -> None:
    """Map the teachers' classes to those of the training data by name.

    Raises:
        ValueError: If a teacher knows none of them, or names are unknown and
            numbers differ.
    """
    data = runner.train_dataloader.dataset
    student = dataset_classes(data, 'train_dataloader.dataset')
    model.map_classes(student)
    for teacher in model.class_teachers():
        if student is None or teacher.classes is None:
            runner.logger.warning(
                f'class names of teacher {teacher.name!r} or of the training '
                'data are unknown: equal numbers are taken for equal lists. '
                f'Set teachers=dict({teacher.name}=dict(classes=[...], ...)).'
            )
            continue
        lacking = [c for c in student if c not in teacher.classes]
        if lacking:
            runner.logger.warning(
                f'teacher {teacher.name!r} lacks {len(lacking)} of '
                f'{len(student)} classes, which get no KD signal from it: '
                f'{lacking[:10]}.'
            )

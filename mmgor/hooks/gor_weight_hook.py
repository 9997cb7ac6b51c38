"""GoRWeightHook: moves the thetas, and logs, checks and plots the weights."""

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

_NO_REST = (
    'with larger steps the thetas may never come to rest; leave it out for '
    'the default'
)
_PREFIX = 'gor_weighting.'
_FUSION = 'fusion.logits'
#: Iterations between two checks of the weights; each makes the host wait for
#: the device. By default NonFiniteLossHook stops a run after ten bad steps, so
#: the check comes earlier.
LOOK_EVERY = 5
_WATCHED = ('gor_w_task', 'gor_w_kd', 'gor_raw_task', 'gor_raw_kd')


@HOOKS.register_module()
class GoRWeightHook(Hook):
    """Moves the balancer's thetas; logs and checks the loss weights.

    The detector adds the weights, thetas and unweighted losses to its outputs
    under ``gor_*``. mmengine writes them to the console, to ``scalars.json``
    and to TensorBoard; ``loss_*`` there are the weighted losses. This hook

    - makes sure that the thetas are in the optimizer, without weight decay;
    - moves the thetas by plain gradient descent at ``theta_lr``, whenever the
      optimizer steps (:mod:`mmgor.weighting.theta_steps`). Their gradient is
      at most 1 and vanishes where they rest. Momentum would overshoot there,
      Adam's normalisation would never let them rest, and warm-up, clipping and
      loss scaling would slow them down by unrelated factors. Plain gradient
      descent brings them to rest within a few per cent of the run, whichever
      optimizer the student has;
    - maps each teacher's classes to the student's by name;
    - measures, every ``gradient_interval`` iterations, the ratio of the norms
      and the cosine of the two weighted gradients at the detector's
      ``gradient_tap``, which costs two backward passes through the head;
    - warns if one of the weighted losses is negligible beside the other
      (unless its weight was set to 0 by hand) or if a value is not finite. It
      checks this after the first iteration and then every five iterations;
    - draws ``gor_weights.png`` at the end of training.

    Args:
        theta_lr (float, optional): Step size of the thetas. Default: that of
            the balancer, if it has one, else 60 divided by the number of
            optimizer steps of the run, kept within [0.02, 0.3]. Below 2: a
            step multiplies a theta's distance to its resting point by
            1 - ``theta_lr``, since the second derivative of the potential is
            1 there, so from 2 on the thetas would swing ever wider. Two
            balancers have a steeper gradient and a lower bound
            (``ThetaWeighting.highest_theta_lr``).
        gradient_interval (int): Iterations between two measurements of the
            gradients. 0: do not measure.
        num_verify_images (int): Before training, log each teacher's metrics
            on this many evaluation images, which go through the student's
            pipeline and the teacher's data_preprocessor. 0: evaluate no
            teacher.
        collapse (float): Warn if the share of the smaller weighted loss in
            the sum is below this.
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
            self.theta_lr = number('theta_lr', theta_lr, '(0, 2)', _NO_REST)
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
        """Save the teachers' names: a trained fusion has a weight for each
        teacher, in their order."""
        teachers = kd_teachers(unwrapped_model(runner))
        checkpoint['meta']['kd_teachers'] = teachers

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Drop thetas and teachers' weights unless the run is resumed.

        Only a resumed run goes on with the thetas, the counters and the
        trained weights of the teachers in its file. In any other run, those
        would skip the balanced start or belong to other teachers.

        Raises:
            ValueError: If the resumed file's KD heads had other teachers.
        """
        state_dict = checkpoint.get('state_dict', checkpoint)
        if runner._resume:
            own = kd_teachers(unwrapped_model(runner))
            theirs = checkpoint.get('meta', {}).get('kd_teachers', own)
            if theirs != own:
                raise ValueError(
                    'resume from a file with other teachers: expected '
                    f'kd_heads that learn from {own}, got {theirs}. '
                    f'{RESUME_HINT}'
                )
            return
        for key in list(state_dict):
            if key.startswith(_PREFIX) or key.endswith(_FUSION):
                del state_dict[key]

    def before_run(self, runner: Runner) -> None:
        """Take weight decay off the thetas and the teachers' weights."""
        self._exempt_scalars(runner)

    def before_train(self, runner: Runner) -> None:
        """Check the model and the classes, and start to move the thetas.

        Raises:
            RuntimeError: If the model has no ``gor_weighting``.
            ValueError: If a teacher knows none of the student's classes, or
                an epoch has no batch.
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
        self._exempt_scalars(runner)
        # Only weights set by hand have no state to save.
        self._by_hand = not model.gor_weighting.state_dict()
        if list(model.gor_weighting.parameters()):
            self._move_thetas(runner, model.gor_weighting)

    def _move_thetas(self, runner: Runner, weighting: Any) -> None:
        """Let the thetas move until training ends."""
        wrapper = runner.optim_wrapper
        steps = runner.max_iters / wrapper._accumulative_counts
        rate = number(
            f'theta_lr with {type(weighting).__name__}',
            self.theta_lr or default_theta_lr(weighting, steps),
            f'(0, {weighting.highest_theta_lr:g})',
            _NO_REST,
        )
        for handle in move_thetas(weighting, wrapper.optimizer, rate):
            self._registered.callback(handle.remove)
        weighting.moved_by_hook = True
        self._registered.callback(setattr, weighting, 'moved_by_hook', False)

    def _exempt_scalars(self, runner: Runner) -> None:
        named = dict(unwrapped_model(runner).named_parameters())
        fusions = {k: v for k, v in named.items() if k.endswith(_FUSION)}
        thetas = {k: v for k, v in named.items() if k.startswith(_PREFIX)}
        exempt_in_runner(
            runner, fusions, 'the trained weights of the teachers'
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
        """Check the iterations since the last check; warn of the first
        collapse."""
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
        # Weighted losses: the weights alone depend on the losses' units.
        task, kd = (w * x for w, x in zip(weights, raw))
        total = task + kd
        if math.isfinite(total) and total != 0:
            meant = self._by_hand and 0 in weights
            if meant or min(task, kd) / total >= self.collapse:
                return
        self._warned = True
        runner.logger.warning(
            f'weighted losses at iteration {iteration}: task {task:.3g}, '
            f'distillation {kd:.3g}. Either one is not finite, or the smaller '
            f'is less than {self.collapse:g} of the sum, so that only the '
            'other is trained. This warning comes only once.'
        )

    def after_train(self, runner: Runner) -> None:
        """Stop moving the thetas; draw the curves."""
        self._registered.close()
        self._look(runner)
        if not is_main_process():
            return
        scalars = Path(runner.log_dir) / 'vis_data' / 'scalars.json'
        if not scalars.is_file():
            runner.logger.warning(
                f'weight curves were not drawn: {scalars} does not exist; '
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
            runner.logger.warning(f'weight curves were not drawn: {error}')
            return
        runner.logger.info(f'Weight curves: {path}')


def kd_teachers(model: Any) -> dict[str, list[str]]:
    """Name of each KD head -> names of its teachers, in order."""
    heads = getattr(model, 'kd_heads', {})
    return {name: list(head.teachers) for name, head in heads.items()}


def map_classes(runner: Runner, model: Any) -> None:
    """Map the teachers' classes to those of the training data by name.

    Args:
        runner (Runner): Its train dataloader built.
        model (GoRMixin): The student.

    Raises:
        ValueError: If a teacher knows none of the classes, or the names are
            unknown and the numbers of classes differ.
    """
    data = runner.train_dataloader.dataset
    student = dataset_classes(data, 'train_dataloader.dataset')
    model.map_classes(student)
    for teacher in model.class_teachers():
        if student is None or teacher.classes is None:
            runner.logger.warning(
                f'class names of teacher {teacher.name!r} or of the training '
                'data are unknown; their classes are taken to be the same, '
                'in the same order. Set teachers=dict('
                f'{teacher.name}=dict(classes=[...], ...)).'
            )
            continue
        lacking = [c for c in student if c not in teacher.classes]
        if lacking:
            runner.logger.warning(
                f'teacher {teacher.name!r} lacks {len(lacking)} of '
                f'{len(student)} classes, so they get no KD signal from it: '
                f'{lacking[:10]}.'
            )

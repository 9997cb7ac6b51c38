"""QuantCalibrationHook: calibrates quantizers, reports the bits of layers."""

from functools import partial
from logging import INFO, WARNING
from pathlib import Path
from statistics import median
from typing import Any

from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmgor.io.checkpoint import (
    RESUME_HINT,
    check_any_match,
    check_resume,
    check_sound,
    flatten,
)
from mmgor.io.checkpoint_reader import named_weights
from mmgor.io.config_values import boolean, integer, mapping
from mmgor.quantization import (
    BaseQuantizer,
    calibrate,
    compensate_weights,
    correct_norms,
    counting_macs,
    equalize,
    float_line,
    format_table,
    layer_table,
    quantized_layers,
    save_table,
    uncalibrated_layers,
)
from mmgor.registry import HOOKS
from mmgor.trial_run import random_states_kept

from .optimizer_groups import (
    STEP_SIZES,
    check_resume_groups,
    exempt_in_runner,
    rates_in_runner,
)
from .student import run_losses, total_loss, unwrapped_model
from .training_batches import check_batches, training_batches


@HOOKS.register_module()
class QuantCalibrationHook(Hook):
    """Calibrates the quantizers that need it before the first iteration.

    It runs after weights were loaded or resumed: layers whose ranges came from
    a quantized checkpoint keep them. The model runs as in a training step
    (:func:`.student.run_losses`), on the batches that training starts with,
    whichever sampler or wrapper makes them. The hook also makes sure that the
    step sizes are in the optimizer, without weight decay, and that an
    ``lr_mult`` of the key '_quantizer.' in ``custom_keys`` holds for all of
    them. A table of all layers goes to the log and to ``quant_table.json`` in
    the work directory.

    Args:
        num_batches (int): Number of training batches to calibrate on.
        equalize (dict[str, list[str]], optional): Activations whose channels
            are brought to a common range before: path of a layer -> paths of
            all layers that read its output. See
            :func:`mmgor.quantization.equalize`.
        loss_weighted (bool): Weigh rounding errors by gradients of the loss.
            See :func:`mmgor.quantization.calibrate`.
        correct_norms (bool): Let batch norms learn what rounded layers give
            them. See :func:`mmgor.quantization.correct_norms`.
        compensate_weights (bool): Round weights so that their errors cancel.
            It needs ``correct_norms``. See
            :func:`mmgor.quantization.compensate_weights`.

    The last two change a float network, on the same batches. One from a
    quantized checkpoint stays as it is.

    Raises:
        ValueError: If ``num_batches`` is less than 1, or
            ``compensate_weights`` is without ``correct_norms``.
    """

    # EMAHook has copied the model by then, but takes over all tensors at its
    # first update.
    priority = 'LOW'

    def __init__(
        self,
        num_batches: int = 8,
        equalize: dict[str, list[str]] | None = None,
        loss_weighted: bool = False,
        correct_norms: bool = False,
        compensate_weights: bool = False,
    ) -> None:
        self.num_batches = integer('num_batches', num_batches, 1)
        example = "equalize={'backbone.stem': ['backbone.layer1']}"
        self.equalize = mapping(
            'equalize', {} if equalize is None else equalize, example
        )
        self.loss_weighted = boolean('loss_weighted', loss_weighted)
        self.correct_norms = boolean('correct_norms', correct_norms)
        self.compensate_weights = boolean(
            'compensate_weights', compensate_weights
        )
        if self.compensate_weights and not self.correct_norms:
            raise ValueError(
                'compensate_weights=True leaves constant errors to batch '
                'norms: expected correct_norms=True beside it.'
            )
        self._starts_rounded = False

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Check a checkpoint before the model loads it.

        Raises:
            RuntimeError: If none of its keys match the model, or, when
                resuming, not all of them.
            ValueError: If it has a value that is not finite or an absurd step
                size.
        """
        model = unwrapped_model(runner)
        state_dict = named_weights('the checkpoint', checkpoint)
        check_sound(model.state_dict(), state_dict, 'checkpoint')
        self._starts_rounded = any(STEP_SIZES in key for key in state_dict)
        if runner._resume:
            check_resume(model, state_dict)
            check_resume_ranges(model, state_dict)
            for part in ('ema_state_dict', 'optimizer'):
                check_sound({}, flatten(checkpoint.get(part, {})), part)
            check_resume_groups(runner, checkpoint.get('optimizer', {}))
        else:
            check_any_match(model, state_dict, '', 'model')

    def before_run(self, runner: Runner) -> None:
        """Take weight decay off the step sizes, and give them the learning
        rate that their own key names."""
        rates_in_runner(runner, _step_sizes(runner))
        _exempt_step_sizes(runner)

    def before_train(self, runner: Runner) -> None:
        """Calibrate what is not calibrated; log and save the table.

        Raises:
            RuntimeError: If the model has no quantized layer, or one that
                calibration did not reach.
            ValueError: If an epoch has no batch.
        """
        model = unwrapped_model(runner)
        if not quantized_layers(model):
            raise RuntimeError(
                'QuantCalibrationHook found no quantized layer: expected '
                "backbone=dict(type='QuantBackbone', backbone=<stock type>, "
                '...) and the same for neck and head, or remove the hook.'
            )
        check_batches(runner)
        _exempt_step_sizes(runner)
        names = uncalibrated_layers(model)
        with counting_macs(model) as macs:
            if names:
                self._calibrate(runner, model, names)
        if is_main_process():
            table = layer_table(model)
            runner.logger.info('Bit policy\n' + format_table(table))
            line, much = float_line(model, macs if names else None)
            runner.logger.log(WARNING if much else INFO, line)
            save_table(table, Path(runner.work_dir) / 'quant_table.json')

    def _calibrate(self, runner: Runner, model: Any, names: list[str]) -> None:
        with random_states_kept():
            batches = training_batches(runner, self.num_batches)
        layers = quantized_layers(model)
        count = len(layers.keys() & names)
        others = len(names) - count
        tensors = f' and {others} other tensors' if others else ''
        runner.logger.info(
            f'Calibrating {count} of {len(layers)} quantized layers{tensors} '
            f'on {len(batches)} batches.'
        )
        run = partial(total_loss if self.loss_weighted else run_losses, model)
        if self.equalize:
            errors = equalize(model, self.equalize, batches, run)
            for name, error in errors.items():
                runner.logger.info(
                    f'Equalized the channels of {name}; its output changes '
                    f'by {error:.2%} of its variance, rounding included.'
                )
        calibrated = partial(
            calibrate, model, batches, run, names, self.loss_weighted
        )
        ranges = [x.weight_quantizer.calibrated for x in layers.values()]
        if not self.correct_norms:
            calibrated()
        elif self._starts_rounded or any(ranges):
            runner.logger.info(
                'Weights and batch norms stay as they are: those of a '
                'quantized checkpoint know rounding.'
            )
            calibrated()
        else:
            with correct_norms(model, batches, run) as moved:
                calibrated()
                if self.compensate_weights:
                    shares = compensate_weights(model, batches, run)
                    runner.logger.info(_shares_line(shares, len(layers)))
            runner.logger.info(_moved_line(moved))


def _shares_line(shares: dict[str, float], layers: int) -> str:
    if not shares:
        return 'compensate_weights found no layer that it can change.'
    worst = max(shares, key=lambda name: shares[name])
    return (
        f'The weights of {len(shares)} of {layers} layers were rounded so '
        'that errors cancel. The squared error of outputs is '
        f'{median(shares.values()):.2f} of the one with nearest integers '
        f'(median), {shares[worst]:.2f} at most ({worst}).'
    )


def _moved_line(moved: dict[str, float]) -> str:
    if not moved:
        return 'No batch norm with statistics had an input.'
    farthest = max(moved, key=lambda name: moved[name])
    return (
        f'The statistics of {len(moved)} batch norms follow rounding. Means '
        f'moved by {median(moved.values()):.2f} standard deviations (median), '
        f'{moved[farthest]:.2f} at most ({farthest}).'
    )


def _step_sizes(runner: Runner) -> dict[str, Any]:
    """What training moves of the quantizers, by name."""
    return {
        name: parameter
        for name, parameter in unwrapped_model(runner).named_parameters()
        if STEP_SIZES in name and parameter.requires_grad
    }


def _exempt_step_sizes(runner: Runner) -> None:
    what = 'the step sizes of the quantizers'
    exempt_in_runner(runner, _step_sizes(runner), what)


def check_resume_ranges(model: Any, state_dict: dict) -> None:
    """Make sure that a resumed file was trained with this model's bits.

    Args:
        model (nn.Module): The model that resumes.
        state_dict (dict): From the file.

    Raises:
        RuntimeError: If a layer has other bits; the message names the first.
    """
    for name, quantizer in model.named_modules():
        if not isinstance(quantizer, BaseQuantizer):
            continue
        if not quantizer.accepts(state_dict, f'{name}.'):
            raise RuntimeError(
                'resume from a file of another config: expected '
                f'{quantizer.bits} bits for {name}, got a range up to '
                f'{int(state_dict[f"{name}.qmax"])}. {RESUME_HINT}'
            )

"""Calibrates quantizers before training and reports the bit policy."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from mmengine.dataset import DefaultSampler
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch.utils.data import DataLoader

from mmgor.checkpoint import check_any_match, check_resume
from mmgor.quantization import (
    calibrate,
    format_table,
    layer_table,
    quantized_layers,
    save_table,
    uncalibrated_layers,
)
from mmgor.registry import HOOKS

from .utils import unwrapped_model


@HOOKS.register_module()
class QuantCalibrationHook(Hook):
    """Fills uncalibrated quantizers before the first iteration.

    Runs after weights were loaded or resumed: a resumed or already quantized
    model keeps its scales. The per-layer table goes to the log and to
    ``quant_table.json`` in the work directory.

    Args:
        num_batches (int): Training batches to look at.

    Raises:
        ValueError: If ``num_batches`` is less than 1.
    """

    # After EMAHook made its copy (NORMAL) would be too early to matter: EMA
    # copies everything at its first update, which comes after calibration.
    priority = 'LOW'

    def __init__(self, num_batches: int = 8) -> None:
        if num_batches < 1:
            raise ValueError(
                f'num_batches must be at least 1, got {num_batches}.'
            )
        self.num_batches = num_batches

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Check a file before it is loaded.

        Raises:
            RuntimeError: If it matches nothing, or, in a resume, not all.
        """
        model = unwrapped_model(runner)
        state_dict = checkpoint.get('state_dict', checkpoint)
        if runner._resume:
            check_resume(model, state_dict)
        else:
            check_any_match(model, state_dict, '', 'model')

    def before_train(self, runner: Runner) -> None:
        """Calibrate what is not calibrated, print and save the table.

        Raises:
            RuntimeError: If the model has no quantized layer, or one that
                calibration did not reach.
        """
        model = unwrapped_model(runner)
        if not quantized_layers(model):
            raise RuntimeError(
                'QuantCalibrationHook found no quantized layer: expected '
                "backbone=dict(type='QuantBackbone', backbone=<stock type>, "
                '...) and the same for neck and head, or remove the hook.'
            )
        if uncalibrated_layers(model):
            self._calibrate(runner, model)
        if is_main_process():
            table = layer_table(model)
            runner.logger.info('Bit policy\n' + format_table(table))
            save_table(table, Path(runner.work_dir) / 'quant_table.json')

    def _calibrate(self, runner: Runner, model: Any) -> None:
        batches = list(islice(_look_at(runner), self.num_batches))
        if not batches:
            raise RuntimeError(
                'calibration got no batch: expected a train_dataloader with '
                'at least one. Check its ann_file and filter_cfg.'
            )
        runner.logger.info(
            f'Calibrating {len(quantized_layers(model))} quantized layers on '
            f'{len(batches)} batches.'
        )

        def run(batch: Any) -> None:
            data = model.data_preprocessor(batch, False)
            model(**data, mode='tensor')

        calibrate(model, batches, run)


def _look_at(runner: Runner) -> Iterator[Any]:
    """Training batches from a loader of its own.

    To stop half-way through the training loader would end the generator that
    mmengine's InfiniteSampler keeps for the whole run.
    """
    stock = runner.train_dataloader
    loader = DataLoader(
        stock.dataset,
        batch_size=stock.batch_size or stock.batch_sampler.batch_size,
        sampler=DefaultSampler(stock.dataset, seed=runner.seed),
        collate_fn=stock.collate_fn,
    )
    return iter(loader)

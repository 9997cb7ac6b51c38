"""Post-training quantization: calibrate and evaluate, without training."""

from mmengine.hooks import EMAHook
from mmengine.registry import LOOPS
from mmengine.runner import EpochBasedTrainLoop
from torch import nn


@LOOPS.register_module()
class CalibrationLoop(EpochBasedTrainLoop):
    """Calibrates the quantizers of a trained model, without training.

    Use it as ``train_cfg=dict(type='CalibrationLoop', max_epochs=0)``, with
    ``load_from`` and with ``QuantCalibrationHook``, which calibrates before
    the first iteration. This loop has no iteration: it saves ``epoch_0.pth``
    and evaluates if the config has validation data. Weights and batch-norm
    statistics stay those of ``load_from``.
    """

    def run(self) -> nn.Module:
        """Calibrate, save and evaluate.

        Returns:
            nn.Module: The calibrated model.

        Raises:
            RuntimeError: If the Runner has an EMAHook.
        """
        runner = self.runner
        if any(isinstance(hook, EMAHook) for hook in runner.hooks):
            # It would evaluate and save its copy, which has no ranges yet.
            raise RuntimeError(
                'CalibrationLoop takes no steps that an EMAHook could '
                'average; expected custom_hooks without one. Remove it.'
            )
        runner.call_hook('before_train')
        runner.save_checkpoint(
            runner.work_dir,
            'epoch_0.pth',
            save_optimizer=False,
            save_param_scheduler=False,
        )
        if runner.val_loop is not None:
            runner.val_loop.run()
        runner.call_hook('after_train')
        return runner.model

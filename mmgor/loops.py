"""Post-training quantization: calibrate and evaluate, without training."""

from mmengine.registry import LOOPS
from mmengine.runner import EpochBasedTrainLoop
from torch import nn


@LOOPS.register_module()
class CalibrationLoop(EpochBasedTrainLoop):
    """Calibrates as before training, saves ``epoch_0.pth`` and evaluates.

    ``QuantCalibrationHook`` calibrates before the first iteration, and no
    iteration follows. Weights and batch-norm statistics stay those of
    ``load_from``.
    """

    def run(self) -> nn.Module:
        """Calibrate and evaluate."""
        self.runner.call_hook('before_train')
        self.runner.save_checkpoint(
            self.runner.work_dir,
            'epoch_0.pth',
            save_optimizer=False,
            save_param_scheduler=False,
        )
        self.runner.val_loop.run()
        self.runner.call_hook('after_train')
        return self.runner.model

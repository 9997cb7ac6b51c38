"""ReportHook: writes the page of a training when it ends."""

from pathlib import Path

from mmengine.dist import master_only
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmgor.io.config_values import integer
from mmgor.registry import HOOKS


@HOOKS.register_module()
class ReportHook(Hook):
    """Writes ``report.html`` into the work directory at the end of training,
    as ``mmgor report`` does.

    It builds student and teachers once more, beside those of the training. If
    the page can't be written, the log has a warning with the reason.

    Args:
        images (int): Evaluation images that student and teachers look at. 0:
            none, which needs the least time.

    Raises:
        ValueError: If ``images`` is less than 0.
    """

    # After the hooks that write checkpoints and curves.
    priority = 'LOWEST'

    def __init__(self, images: int = 16) -> None:
        self.images = integer('images', images, 0)

    @master_only
    def after_train(self, runner: Runner) -> None:
        """Write the page."""
        # Only here: it needs what training does not.
        from mmgor.training_report import write_report

        folder = Path(runner.work_dir)
        try:
            out = write_report(folder, images=self.images, tell=_quiet)
        except Exception as error:  # a finished training must not fail here
            runner.logger.warning(
                f'the report was not written ({type(error).__name__}: '
                f'{error}). The training is complete; try: mmgor report '
                f'{folder}'
            )
            return
        runner.logger.info(f'Report: {out}')


def _quiet(line: str) -> None:
    """Takes the lines on the progress."""

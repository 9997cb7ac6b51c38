"""ExactResumeHook: a training that ends early goes on as if it had not."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from mmengine import dist
from mmengine.dist import is_main_process, master_only
from mmengine.hooks import Hook
from mmengine.optim import OptimWrapperDict
from mmengine.runner import IterBasedTrainLoop, Runner

from mmgor.io.atomic_write import write_text
from mmgor.io.checksums import checksum_path
from mmgor.io.random_states import random_states, set_random_states
from mmgor.stop_signals import StopRequest

from .safe_checkpoint_hook import POSITION, RANDOM_STATES, local_backend_args

#: What a training that was asked to stop leaves in its work directory.
STOPPED = 'stopped.pth'
# In the work directory: the iteration of the newest complete evaluation.
_EVALUATED = 'last_evaluation'
# Ranks of a distributed run ask each other in every so many iterations.
_ASK_EVERY = 10


class ExactResumeHook(Hook):
    """Makes a resumed training draw the same random numbers and read the
    same batches as one without interruption, and stops one on request.

    The sampler must have the seed of the run before:
    ``randomness.seed``, or :func:`mmgor.io.resume.keep_seed` before the
    Runner is built.

    - A resumed run gets the random states that ``SafeCheckpointHook`` has
      saved. An evaluation does not change them.
    - A run that was stopped in the midst of an epoch goes on behind the last
      batch that it trained on. (The batches before are read, not trained.)
    - If the run ended in an evaluation, after its checkpoint, the evaluation
      is done first. If a scheduler steps by its result (ReduceOnPlateau), a
      complete evaluation is repeated, too, if the checkpoint is older.
    - After SIGTERM or Ctrl-C, the run saves ``stopped.pth`` when the iteration
      is complete, and an evaluation if one follows. It names the file in
      ``last_checkpoint``, logs how to resume, and ends with a SystemExit of
      128 plus the signal's number. Ranks of a distributed run agree in every
      tenth iteration.

    tools/train.py adds it to the hooks of the config.

    Random augmentation in worker processes is repeated where workers start
    anew in each epoch, and in a loop over iterations (not with
    onedl-mmengine, which reads nothing again). Persistent workers of a loop
    over epochs draw other numbers than before.

    Args:
        request (StopRequest, optional): From
            :func:`mmgor.stop_signals.stop_requests`. None: signals are not
            looked at.
        command (str): How to resume, for the log.
    """

    # At the end of what other hooks do in an iteration.
    priority = 'LOWEST'

    def __init__(
        self, request: StopRequest | None = None, command: str = '--resume'
    ) -> None:
        self._request = request or StopRequest()
        self._command = command
        self._resumed: dict[str, Any] | None = None
        self._position: dict[str, Any] = {}
        self._states: dict[str, Any] = {}
        self._before_val: dict[str, Any] = {}

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Take over the random states of a run that is resumed."""
        if runner._resume:
            self._position = checkpoint['meta'].get(POSITION, {})
            saved = checkpoint['meta'].get(RANDOM_STATES, [])
            same = len(saved) == dist.get_world_size()
            self._resumed = saved[dist.get_rank()] if same else {}

    def before_train(self, runner: Runner) -> None:
        """Do an evaluation that is missing; continue a loop over
        iterations."""
        loop = runner.train_loop
        if self._resumed is not None and self._position:
            loop._epoch = self._position['epoch']
            loop._iter = self._position['iter']
        _forget_later_evaluations(runner)
        if self._resumed is None:
            return
        if _evaluation_is_missing(runner, self._position):
            runner.logger.info('the run ended in an evaluation: it comes now.')
            if self._resumed:  # a best checkpoint is saved with them
                set_random_states(self._resumed)
            runner.val_loop.run()
        if isinstance(loop, IterBasedTrainLoop):
            loop.dataloader_iterator = _Continued(
                loop.dataloader_iterator, loop, self._resumed
            )
            self._resumed = None

    def before_train_epoch(self, runner: Runner) -> None:
        """Continue a loop over epochs."""
        loop = runner.train_loop
        if self._resumed is None or isinstance(loop, IterBasedTrainLoop):
            return
        done = _batches_trained_on(loop, self._position)
        if done:
            runner.logger.info(
                f'{done} of {len(loop.dataloader)} batches of epoch '
                f'{loop.epoch + 1} were trained on: they are passed over.'
            )
        loop.dataloader = _RestOfEpoch(loop, done, self._resumed)
        self._resumed = None

    @master_only
    def after_train(self, runner: Runner) -> None:
        """Remove what is no longer needed."""
        path = Path(runner.work_dir) / STOPPED
        last = path.with_name('last_checkpoint')
        if last.is_file() and Path(last.read_text().strip()).name != STOPPED:
            path.unlink(missing_ok=True)
            checksum_path(path).unlink(missing_ok=True)

    def before_val_epoch(self, runner: Runner) -> None:
        """Keep the random states."""
        self._before_val = random_states()

    def after_val_epoch(
        self, runner: Runner, metrics: dict[str, float] | None = None
    ) -> None:
        """Put the random states back; note what has been evaluated."""
        set_random_states(self._before_val)
        if is_main_process():
            note = Path(runner.work_dir) / _EVALUATED
            write_text(note, str(runner.iter))

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: dict | None = None,
    ) -> None:
        """Keep the random states, before the next batch is drawn."""
        if self._asks(runner.iter + 1):
            self._states = random_states()

    def before_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None
    ) -> None:
        """Stop, if a signal has asked for it.

        Only here has all been done that follows the iteration before.

        Raises:
            SystemExit: If the training stops.
        """
        if not self._states or not self._asks(runner.iter):
            return
        number = self._agreed()
        # Gradients that are being accumulated are in no checkpoint.
        if number and _steps_are_complete(runner):
            self._save(runner, batch_idx)
            runner.logger.warning(
                f'stopped after iteration {runner.iter}, as asked. Go on '
                f'with: {self._command}'
            )
            raise SystemExit(128 + number)

    def _asks(self, iteration: int) -> bool:
        if dist.get_world_size() > 1:
            return iteration % _ASK_EVERY == 0
        return bool(self._request.number)

    def _agreed(self) -> int:
        number = torch.tensor([self._request.number])
        dist.all_reduce(number, 'max')
        return int(number)

    def _save(self, runner: Runner, batches: int) -> None:
        states = dist.all_gather_object(self._states)
        reached = dict(epoch=runner.epoch, iter=runner.iter)
        runner.save_checkpoint(
            runner.work_dir,
            STOPPED,
            meta={
                **reached,
                POSITION: dict(reached, batches=batches, evaluated=True),
                RANDOM_STATES: states,
            },
            backend_args=local_backend_args(),
        )
        if is_main_process():
            folder = Path(runner.work_dir)
            write_text(folder / 'last_checkpoint', str(folder / STOPPED))
        # A launcher may kill this rank soon after the others have ended.
        dist.barrier()


@master_only
def _forget_later_evaluations(runner: Runner) -> None:
    """Those of an earlier run in this folder, or behind the checkpoint."""
    note = Path(runner.work_dir) / _EVALUATED
    reached = runner.train_loop.iter
    if note.is_file() and int(note.read_text()) > reached:
        write_text(note, str(reached))


def _batches_trained_on(loop: Any, position: dict[str, Any]) -> int:
    """Of the epoch that a loop over epochs is in."""
    length = len(loop.dataloader)
    if position:
        return min(position['batches'], length)
    # The checkpoint of another hook: right if the data are the same.
    done = loop.iter - loop.epoch * length
    return done if 0 <= done <= length else 0


def _evaluation_is_missing(runner: Runner, position: dict[str, Any]) -> bool:
    """Whether one follows the last iteration of a run and was not done."""
    loop = runner.train_loop
    if runner.val_loop is None or not loop.iter or position.get('evaluated'):
        return False
    loop._decide_current_val_interval()
    by_epoch = not isinstance(loop, IterBasedTrainLoop)
    if by_epoch and _batches_trained_on(loop, position):
        return False
    done, last = loop.iter, loop.max_iters
    if by_epoch:
        done, last = loop.epoch, loop.max_epochs
    follows = done % loop.val_interval == 0 or done == last
    if done < loop.val_begin or not follows:
        return False
    note = Path(runner.work_dir) / _EVALUATED
    known = int(note.read_text()) if note.is_file() else 0
    again = bool(position) and _a_scheduler_needs_it(runner)
    found = [known < loop.iter or again]
    dist.broadcast_object_list(found)
    return found[0]


def _a_scheduler_needs_it(runner: Runner) -> bool:
    schedulers = runner.param_schedulers or []
    lists = (
        schedulers.values() if isinstance(schedulers, dict) else [schedulers]
    )
    return any(
        getattr(scheduler, 'need_val_args', False)
        for schedulers in lists
        for scheduler in schedulers
    )


def _steps_are_complete(runner: Runner) -> bool:
    stock = runner.optim_wrapper
    parts = isinstance(stock, OptimWrapperDict)
    return all(
        wrapper.should_update()
        for wrapper in (stock.values() if parts else [stock])
        if hasattr(wrapper, 'should_update')  # DeepSpeed's has none
    )


class _Continued:
    """The batches of a loop over iterations, from where a run ended.

    The loop itself passes over those before. Then the random states are set.
    """

    def __init__(self, stock: Any, loop: Any, states: dict[str, Any]) -> None:
        self._stock, self._states = stock, states
        # onedl-mmengine may pass over none.
        fast = getattr(loop, 'fast_forward_on_resume', False)
        self._left = 0 if fast else loop.iter

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stock, name)

    def __next__(self) -> Any:
        if self._left == 0 and self._states:
            # onedl-mmengine draws a number when it starts to read.
            getattr(self._stock, '_ensure_iterator', lambda: None)()
            set_random_states(self._states)
        self._left -= 1
        return next(self._stock)

    def skip_iter(self, number: int) -> None:
        """Pass over batches, as onedl-mmengine does."""
        self._stock.skip_iter(number)
        self._left -= number


class _RestOfEpoch:
    """The batches of an epoch from where a run ended, once.

    The loop has its own loader again when it starts to read. Hooks and logs
    get the numbers that batches have in the whole epoch.
    """

    def __init__(self, loop: Any, done: int, states: dict[str, Any]) -> None:
        self._loop, self._stock = loop, loop.dataloader
        self._done, self._states = done, states

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stock, name)

    def __len__(self) -> int:
        return len(self._stock)

    def __iter__(self) -> Iterator[Any]:
        loop, run_iter = self._loop, self._loop.run_iter
        loop.dataloader = self._stock
        # At the start of an epoch, the loader still has to draw a number.
        if not self._done and self._states:
            set_random_states(self._states)
        batches = iter(self._stock)
        for _ in range(self._done):
            next(batches)
        if self._done and self._states:
            set_random_states(self._states)
        loop.run_iter = lambda index, batch: run_iter(
            index + self._done, batch
        )
        try:
            yield from batches
        finally:
            loop.run_iter = run_iter

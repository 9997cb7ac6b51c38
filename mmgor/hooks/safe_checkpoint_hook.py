"""SafeCheckpointHook: checkpoints that survive a kill or a full disk."""

import os
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

from mmengine import dist
from mmengine.config import Config
from mmengine.dist import is_main_process, master_only
from mmengine.fileio import LocalBackend, get_file_backend, register_backend
from mmengine.hooks import CheckpointHook
from mmengine.runner import Runner, save_checkpoint
from mmengine.runner.checkpoint import _load_checkpoint

from mmgor.io.atomic_write import leftovers, write_text
from mmgor.io.checksums import checksum_path, write_checkpoint
from mmgor.io.random_states import random_states
from mmgor.io.resume import find_checkpoint
from mmgor.registry import HOOKS

#: Key of a checkpoint's meta: the random states of all ranks.
RANDOM_STATES = 'random_states'
#: Key of a checkpoint's meta: ``epoch``, ``iter``, ``batches`` of this epoch
#: that were trained on, and ``evaluated``: whether the evaluation that follows
#: this iteration, if one does, is complete. A FlexibleRunner overwrites the
#: meta's own ``epoch`` and ``iter``.
POSITION = 'position'
#: Key of a checkpoint's meta: names of older ones in its folder, removed once
#: it is saved.
OUTDATED = 'outdated'
_BACKEND = 'mmgor_local'


class WholeFileBackend(LocalBackend):
    """Local files that are written whole or not at all, with a checksum."""

    #: What is to be removed at the end of :meth:`removing_last`.
    waiting: list[str | Path] | None = None

    def put(self, obj: bytes, filepath: str | Path) -> None:
        write_checkpoint(filepath, obj)

    def remove(self, filepath: str | Path) -> None:
        if self.waiting is not None:
            self.waiting.append(filepath)
            return
        checksum_path(filepath).unlink(missing_ok=True)
        super().remove(filepath)

    def rmtree(self, dir_path: str | Path) -> None:
        if self.waiting is not None:
            self.waiting.append(dir_path)
            return
        super().rmtree(dir_path)

    @contextmanager
    def removing_last(self) -> Iterator[list[str | Path]]:
        """Put off removals in the ``with`` block until it has succeeded.

        If it fails, the files stay.

        Yields:
            list[str | Path]: What waits. What the block takes out stays.
        """
        waiting: list[str | Path] = []
        self.waiting = waiting
        try:
            yield waiting
        finally:
            self.waiting = None
        for path in waiting:
            if self.isdir(path):  # DeepSpeed's
                self.rmtree(path)
            else:
                self.remove(path)


register_backend(_BACKEND, WholeFileBackend, force=True)


def local_backend_args() -> dict[str, Any]:
    """``backend_args`` for files that are written whole or not at all."""
    return dict(backend=_BACKEND)


@HOOKS.register_module()
class SafeCheckpointHook(CheckpointHook):
    """mmengine's CheckpointHook, except that an intact checkpoint always
    exists once one was saved.

    - A checkpoint and ``last_checkpoint`` get their names when they are
      complete and on the disk. Older checkpoints are removed after that, by
      the resumed run if a kill comes between. Nothing is removed outside of
      the run's own folder.
    - ``epoch_1.pth.sha256`` has the SHA-256 of ``epoch_1.pth``, in the format
      of ``sha256sum -c``. mmgor compares it whenever it loads the file.
    - A checkpoint has the random states of all ranks and the position in the
      epoch, which ``ExactResumeHook`` puts back.
    - With ``resume=True`` and without ``load_from``, the run goes on from the
      newest good checkpoint. If there is none, it starts from the
      ``load_from`` of the config file. The log says which.

    If ``out_dir`` is not a local folder, or ``backend_args`` are given, files
    are written as by mmengine's hook; the log says so.

    Args:
        *args: As for mmengine's hook.
        **kwargs: As for mmengine's hook.
    """

    out_dir: Any
    backend_args: dict | None
    best_ckpt_path: Any

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # ``before_train`` replaces both each time that training starts.
        self._as_configured = self.out_dir, self.backend_args
        self._batches = 0
        self._before_val: dict[str, Any] | None = None
        self._outdated: list[str] = []

    def before_run(self, runner: Runner) -> None:
        if runner._resume is not True or runner._load_from is not None:
            return
        found = [is_main_process() and find_checkpoint(runner.work_dir)]
        dist.broadcast_object_list(found)
        if found[0]:
            runner._load_from = found[0]
            return
        runner._resume = False
        runner._load_from = _written_load_from(runner.cfg)
        runner.logger.warning(
            f'no checkpoint to resume in {runner.work_dir}: training starts '
            f'from {runner._load_from or "initial weights"}.'
        )

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        self._outdated = []
        if runner._resume:
            # Whoever made the file: nothing else is removed.
            self._outdated = [
                Path(name).name
                for name in checkpoint['meta'].get(OUTDATED, [])
                if name.endswith('.pth')
            ]

    def before_train(self, runner: Runner) -> None:
        self.out_dir, self.backend_args = self._as_configured
        self._choose_backend(runner)
        super().before_train(runner)
        self._use_own_paths(runner)
        if isinstance(self.file_backend, WholeFileBackend):
            self._remove_leftovers(runner)

    def _use_own_paths(self, runner: Runner) -> None:
        """Replace the message hub's paths by those of this run's folder.

        The checkpoint may have been moved, copied, or of another run.
        """
        hub = runner.message_hub
        last = hub.get_info('last_ckpt')
        # A best one from an evaluation that is made up for has to rewrite it.
        self.last_ckpt = last and self._path_of(Path(last).name)
        if not self.save_best:
            return
        if len(self.key_indicators) == 1:
            if self.best_ckpt_path:
                self.best_ckpt_path = self._own(runner, self.best_ckpt_path)
                hub.update_info('best_ckpt', self.best_ckpt_path)
            return
        for key, path in self.best_ckpt_path_dict.items():
            if path:
                self.best_ckpt_path_dict[key] = own = self._own(runner, path)
                hub.update_info(f'best_ckpt_{key}', own)

    def _own(self, runner: Runner, path: str) -> str | None:
        """This run's file of that name, if there is one."""
        own = self._path_of(Path(path).name)
        # The same name in another folder is of another run.
        ours = self._is_inside(path) or self._is_inside(runner._load_from)
        return own if ours and self.file_backend.exists(own) else None

    def _path_of(self, name: str) -> str:
        return self.file_backend.join_path(self.out_dir, name)

    def _is_inside(self, path: str | Path | None) -> bool:
        if not path:
            return False
        return Path(path).parent.resolve() == Path(self.out_dir).resolve()

    @master_only
    def _remove_leftovers(self, runner: Runner) -> None:
        out_dir = Path(self.out_dir)
        for folder in {out_dir, Path(runner.work_dir)}:
            for path in leftovers(folder):
                path.unlink(missing_ok=True)
        # The same names in another folder are of another run.
        if self._is_inside(runner._load_from):
            loaded = Path(runner._load_from).name
            paths = [
                self._path_of(name)
                for name in self._outdated
                if name != loaded and self._removes(name)
            ]
            self._remove(self._superseded(paths))
        self._outdated = []

    def _removes(self, name: str) -> bool:
        """Whether this run removes older checkpoints of that kind."""
        if name.startswith('best_'):
            return bool(self.save_best)
        return self.max_keep_ckpts > 0

    def _superseded(self, paths: list[Any]) -> list[str]:
        """Names of those in this run's folder that are not the best now.

        An evaluation that is repeated may write the best one to the path of
        the former.
        """
        best = getattr(self, 'best_ckpt_path_dict', {}).values()
        best = {*best, getattr(self, 'best_ckpt_path', None)} - {None}
        kept = {Path(path).name for path in best}
        inside = [Path(path).name for path in paths if self._is_inside(path)]
        return [name for name in inside if name not in kept]

    def _choose_backend(self, runner: Runner) -> None:
        stock = get_file_backend(self.out_dir or runner.work_dir)
        given = self.backend_args or self.file_client_args
        if given or not isinstance(stock, LocalBackend):
            runner.logger.warning(
                f'checkpoints go to {self.out_dir or runner.work_dir} with '
                f'backend_args={given}: they may be left half written and '
                'have no checksum. Expected a local folder and no '
                'backend_args.'
            )
        else:
            self.backend_args = local_backend_args()

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: dict | None = None,
    ) -> None:
        self._batches = batch_idx + 1
        super().after_train_iter(runner, batch_idx, data_batch, outputs)

    def after_train_epoch(self, runner: Runner) -> None:
        self._batches = 0
        super().after_train_epoch(runner)

    def before_val_epoch(self, runner: Runner) -> None:
        self._before_val = random_states()

    def after_val_epoch(
        self, runner: Runner, metrics: dict[str, float]
    ) -> None:
        super().after_val_epoch(runner, metrics)
        self._before_val = None

    def _save_checkpoint_with_step(
        self, runner: Runner, step: int, meta: dict
    ) -> None:
        waiting = getattr(self.file_backend, 'waiting', None) or []
        name = self.filename_tmpl.format(step)
        outdated = self._note_step(runner, step)
        self.last_ckpt = self._path_of(name)
        runner.message_hub.update_info('last_ckpt', self.last_ckpt)
        # The best checkpoint's name is saved at the end of an evaluation.
        # Training goes on with the states from before it.
        states = self._before_val or random_states()
        # In the meta, a FlexibleRunner has then written other numbers.
        reached = meta['epoch'], meta['iter']
        if self._before_val:
            reached = runner.epoch, runner.iter
        position = dict(
            epoch=reached[0],
            iter=reached[1],
            batches=self._batches,
            evaluated=bool(self._before_val),
        )
        runner.save_checkpoint(
            self.out_dir,
            name,
            self.file_client_args,
            save_optimizer=self.save_optimizer,
            save_param_scheduler=self.save_param_scheduler,
            meta={
                **meta,
                OUTDATED: [*outdated, *self._superseded(waiting)],
                POSITION: position,
                RANDOM_STATES: dist.all_gather_object(states),
            },
            by_epoch=self.by_epoch,
            backend_args=self.backend_args,
            **self.args,
        )
        if is_main_process():
            write_text(
                Path(runner.work_dir) / 'last_checkpoint', self.last_ckpt
            )
        self._remove(outdated)

    def _note_step(self, runner: Runner, step: int) -> list[str]:
        """Note that this step's checkpoint is kept, and which are not.

        The checkpoint itself stores which steps are kept.

        Returns:
            list[str]: Names of files to remove once the new checkpoint is
            written.
        """
        if self.max_keep_ckpts <= 0:
            return []
        before = list(self.keep_ckpt_ids)
        # The template may have no place for the step: one name for all.
        name = self.filename_tmpl.format(step)
        if name not in map(self.filename_tmpl.format, before):
            self.keep_ckpt_ids.append(step)  # drops the oldest
        kept = list(self.keep_ckpt_ids)
        runner.message_hub.update_info('keep_ckpt_ids', kept)
        return [
            self.filename_tmpl.format(old) for old in before if old not in kept
        ]

    def _save_best_checkpoint(self, runner: Runner, metrics: dict) -> None:
        if not isinstance(self.file_backend, WholeFileBackend):
            super()._save_best_checkpoint(runner, metrics)
            return
        # This rewrites the last checkpoint, which stores the best one's name.
        with self.file_backend.removing_last() as waiting:
            super()._save_best_checkpoint(runner, metrics)
            names = self._superseded(waiting)
            waiting[:] = [self._path_of(name) for name in names]

    @master_only
    def _publish_model(self, runner: Runner, ckpt_path: str | None) -> None:
        if not ckpt_path or not self.file_backend.exists(ckpt_path):
            what = ckpt_path or 'the best checkpoint'
            runner.logger.warning(
                f'{what} is not published: it is not in {self.out_dir}.'
            )
            return
        content = _load_checkpoint(ckpt_path, map_location='cpu')
        kept = {k: v for k, v in content.items() if k in self.published_keys}
        digest = sha256(pickle.dumps(kept)).hexdigest()  # as in mmengine
        path = f'{os.path.splitext(ckpt_path)[0]}-{digest[:8]}.pth'
        save_checkpoint(kept, path, backend_args=self.backend_args)
        runner.logger.info(f'{ckpt_path} is published to {path}.')

    def _remove(self, names: list[str]) -> None:
        for name in names if is_main_process() else ():
            path = self._path_of(name)
            if self.file_backend.isfile(path):
                self.file_backend.remove(path)
            elif self.file_backend.isdir(path):  # DeepSpeed's
                self.file_backend.rmtree(path)


def _written_load_from(cfg: Any) -> str | None:
    """``load_from`` as the config file has it.

    The option ``--resume`` of mmdet's training script removes it from the
    config.
    """
    path = cfg.filename
    if path and Path(path).is_file():
        return Config.fromfile(path).get('load_from')
    return None

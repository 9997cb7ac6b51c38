"""What a teacher is worth on the student's evaluation pictures."""

import copy
from typing import Any

from mmengine.dist import all_gather_object, get_world_size
from mmengine.evaluator import Evaluator
from mmengine.runner import Runner

# A teacher below this teaches noise; most often its config is not the one
# that it was trained with.
SUSPICIOUS_MAP = 0.05


def verify_teachers(runner: Runner, model: Any, num_images: int) -> None:
    """Log every teacher's metrics on the first evaluation pictures.

    Args:
        runner (Runner): With a val_dataloader and a val_evaluator.
        model (GoRMixin): The student, its teachers built.
        num_images (int): Pictures, over all ranks.

    Raises:
        RuntimeError: If the run has no evaluation data.
    """
    if runner.val_loop is None:
        raise RuntimeError(
            'verify_teacher needs evaluation pictures; expected '
            'val_dataloader, val_evaluator and val_cfg in the config, or '
            'verify_teacher=0.'
        )
    for name, teacher in model.teachers.items():
        metrics = teacher_metrics(runner, model, teacher, num_images)
        values = ', '.join(f'{k} {v:.4g}' for k, v in metrics.items())
        runner.logger.info(f'Teacher {name!r} before training: {values}')
        if metrics.get('coco/bbox_mAP', 1.0) < SUSPICIOUS_MAP:
            runner.logger.warning(
                f'teacher {name!r} detects next to nothing; expected about '
                'the mAP it was published with. Check that config and '
                'checkpoint belong together, its data_preprocessor (channel '
                'order, mean, std) and its class names.'
            )


def teacher_metrics(
    runner: Runner, model: Any, teacher: Any, num_images: int
) -> dict[str, float]:
    """Metrics of the run's own evaluator for one teacher.

    Args:
        runner (Runner): With a val_loop.
        model (GoRMixin): The student.
        teacher (Teacher): Built.
        num_images (int): Pictures, over all ranks.
    """
    loader: Any = runner.val_loop.dataloader  # type: ignore[union-attr]
    evaluator = Evaluator(copy.deepcopy(runner.cfg.val_evaluator))
    evaluator.dataset_meta = loader.dataset.metainfo
    classes = loader.dataset.metainfo.get('classes')
    ids: list = []
    for batch in loader:
        data = model.data_preprocessor(batch, False)
        samples = teacher.predict(
            data['inputs'],
            model.data_preprocessor,
            data['data_samples'],
            classes,
        )
        evaluator.process(samples, batch)
        ids += [sample.img_id for sample in samples]
        if len(ids) * get_world_size() >= num_images:
            break
    everyone = [i for part in all_gather_object(ids) for i in part]
    for metric in evaluator.metrics:
        if hasattr(metric, 'img_ids'):  # CocoMetric: else misses count
            metric.img_ids = sorted(set(everyone))
    return evaluator.evaluate(len(everyone))

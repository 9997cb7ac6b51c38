"""What a teacher is worth on the student's evaluation images."""

import copy
from typing import Any

from mmengine.dist import all_gather_object, get_world_size
from mmengine.runner import Runner

from mmgor.io.class_names import dataset_classes

# A teacher below this teaches noise; most often its config is not the one
# that it was trained with.
SUSPICIOUS_MAP = 0.05


def verify_teachers(runner: Runner, model: Any, num_images: int) -> None:
    """Log teachers' metrics on the first evaluation images.

    A teacher of features alone may know other classes, and is left out.

    Args:
        runner (Runner): With a val_dataloader and a val_evaluator.
        model (GoRMixin): The student, its teachers built.
        num_images (int): Pictures, over all ranks.

    Raises:
        RuntimeError: If the run has no evaluation data or no evaluator, or
            one that must see all images and would not.
        ValueError: If a joined data set's parts differ in their classes.
    """
    if getattr(runner.val_loop, 'evaluator', None) is None:
        raise RuntimeError(
            'num_verify_images needs evaluation images; expected '
            'val_dataloader, val_evaluator and val_cfg in the config, or '
            'num_verify_images=0.'
        )
    judged = model.class_teachers()
    for name, teacher in model.teachers.items():
        if teacher not in judged:
            runner.logger.info(
                f'Teacher {name!r} is not verified: no KD head reads its '
                'classes.'
            )
            continue
        metrics = teacher_metrics(runner, model, teacher, num_images)
        values = ', '.join(f'{k} {v:.4g}' for k, v in metrics.items())
        values = values or 'no metrics, as if it had found no box at all'
        runner.logger.info(f'Teacher {name!r} before training: {values}')
        maps = [v for k, v in metrics.items() if k.endswith('mAP')]
        # CocoMetric says nothing where there is no box.
        if not metrics or not all(v >= SUSPICIOUS_MAP for v in maps):
            runner.logger.warning(
                f'teacher {name!r} detects next to nothing; expected about '
                'the mAP it was published with. Check that config and '
                'checkpoint belong together, its data_preprocessor (channel '
                'order, mean, std) and its class names. (CocoMetric says '
                '-1 where the images have no labels.)'
            )


def teacher_metrics(
    runner: Runner, model: Any, teacher: Any, num_images: int
) -> dict[str, float]:
    """Metrics of the run's own evaluator for one teacher.

    Args:
        runner (Runner): With a val_loop, whose evaluator stays as it is.
        model (GoRMixin): The student.
        teacher (Teacher): Built.
        num_images (int): Pictures, over all ranks.

    Returns:
        dict[str, float]: {} from CocoMetric if the teacher finds no box.

    Raises:
        RuntimeError: If the evaluator must see all images and would not.
        ValueError: If a joined data set's parts differ in their classes.
    """
    loop: Any = runner.val_loop
    loader, evaluator = loop.dataloader, copy.deepcopy(loop.evaluator)
    whole = len(loader.dataset)
    # MultiDatasetsEvaluator cuts what it got at the data sets' sizes.
    if hasattr(evaluator, 'dataset_prefixes') and num_images < whole:
        raise RuntimeError(
            f'{type(evaluator).__name__} must see all {whole} evaluation '
            f'images, got num_verify_images={num_images}. Set '
            f'num_verify_images={whole}, or 0 for none.'
        )
    classes = dataset_classes(loader.dataset, 'val_dataloader.dataset')
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
    # Samplers repeat the first images at the end, so that all ranks have
    # the same number; the evaluator drops what goes beyond this size.
    return evaluator.evaluate(min(len(everyone), whole))

"""Evaluates the teachers on the student's evaluation images."""

import copy
from typing import Any

from mmengine.dist import all_gather_object, get_world_size
from mmengine.runner import Runner

from mmgor.io.class_names import dataset_classes

# A teacher below this mAP teaches noise. Most often its config is not the one
# it was trained with.
SUSPICIOUS_MAP = 0.05


def verify_teachers(runner: Runner, model: Any, num_images: int) -> None:
    """Log each teacher's metrics on the first evaluation images.

    A teacher whose classes no KD head reads is left out: it may know other
    classes than the student.

    Args:
        runner (Runner): With a val_dataloader and a val_evaluator.
        model (GoRMixin): The student, its teachers built.
        num_images (int): Number of images, over all ranks.

    Raises:
        RuntimeError: If the run has no evaluation data or no evaluator, or if
            its evaluator needs all images and ``num_images`` is smaller.
        ValueError: If the parts of a joined data set differ in their classes.
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
        values = values or 'no metrics, as if it had not found any box'
        runner.logger.info(f'Teacher {name!r} before training: {values}')
        maps = [v for k, v in metrics.items() if k.endswith('mAP')]
        # CocoMetric returns nothing if there is no box.
        if not metrics or not all(v >= SUSPICIOUS_MAP for v in maps):
            runner.logger.warning(
                f'teacher {name!r} detects next to nothing; expected about '
                'the mAP it was published with. Check that its config and '
                'checkpoint belong together, its data_preprocessor (channel '
                'order, mean, std) and its class names. (CocoMetric gives '
                '-1 if the images have no labels.)'
            )


def teacher_metrics(
    runner: Runner, model: Any, teacher: Any, num_images: int
) -> dict[str, float]:
    """Evaluate one teacher with a copy of the run's evaluator.

    Args:
        runner (Runner): With a val_loop.
        model (GoRMixin): The student.
        teacher (Teacher): Built.
        num_images (int): Number of images, over all ranks.

    Returns:
        dict[str, float]: The metrics; {} from CocoMetric if the teacher finds
        no box.

    Raises:
        RuntimeError: If the evaluator needs all images and ``num_images`` is
            smaller.
        ValueError: If the parts of a joined data set differ in their classes.
    """
    loop: Any = runner.val_loop
    loader, evaluator = loop.dataloader, copy.deepcopy(loop.evaluator)
    whole = len(loader.dataset)
    # MultiDatasetsEvaluator splits the results at the sizes of the data sets.
    if hasattr(evaluator, 'dataset_prefixes') and num_images < whole:
        raise RuntimeError(
            f'{type(evaluator).__name__} has to see all {whole} evaluation '
            f'images, got num_verify_images={num_images}. Set '
            f'num_verify_images={whole}, or 0 to evaluate no teacher.'
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
        # CocoMetric would count all other images as missed.
        if hasattr(metric, 'img_ids'):
            metric.img_ids = sorted(set(everyone))
    # Samplers repeat the first images at the end, so that all ranks have the
    # same number; the evaluator drops the results beyond this size.
    return evaluator.evaluate(min(len(everyone), whole))

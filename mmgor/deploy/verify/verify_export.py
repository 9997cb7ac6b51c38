"""``verify_export``: compares an exported file with its checkpoint.

Both get the same images. Fake quantization rounds sums of floats. If the
file's runtime adds in another order, a value halfway between two steps may
round to the other step, and later layers pass the difference on. So single
values of any two correct programs differ by whole steps, and steps are larger
with fewer bits. The largest difference therefore says little; the mean over a
tensor and the metrics of the evaluator count. What PyTorch's outputs and
detections move by after a tiny change of what it rounds is measured, too: a
file may differ by twice as much, within bounds.
"""

from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.evaluator import Evaluator
from mmengine.runner import Runner
from torch import Tensor

from mmgor.deploy.description.metadata_reader import read_metadata
from mmgor.deploy.export.frozen import check_calibrated
from mmgor.deploy.head_outputs import flatten
from mmgor.deploy.loading import load_detector
from mmgor.deploy.parts import parts_of
from mmgor.deploy.runtime.runtime_config import runtime_model
from mmgor.io.checkpoint import weights_checksum
from mmgor.io.config_values import boolean, integer
from mmgor.registry import MODELS

from .changed_roundings import changed_roundings, input_quantizers
from .comparison import CHANGE, Verification


@torch.no_grad()
def verify_export(
    cfg: Config,
    checkpoint: str | Path,
    path: str | Path,
    images: int = 32,
    evaluate: bool = False,
    integer_kernels: bool | None = None,
) -> Verification:
    """Run a checkpoint and the file exported from it on the test images.

    Both get the same inputs, padded to the file's size, and one head decodes
    the outputs of both; of a file that has a part of a detector, one rest in
    PyTorch. So every difference comes from the file. For a file with NMS in
    its graph only detections are compared.

    Args:
        cfg (Config): The config of both, with test data.
        checkpoint (str | Path): Checkpoint of the fake-quantized model.
        path (str | Path): Exported file.
        images (int): Number of images to compare outputs and detections on:
            the first ones of the test data, rounded up to whole batches.
        evaluate (bool): Also evaluate both on all images, with the config's
            ``test_evaluator``.
        integer_kernels (bool, optional): See :func:`.open_runtime`.

    Returns:
        Verification: The differences.

    Raises:
        FileNotFoundError: If a file does not exist.
        ValueError: If the file can't be used or does not fit the config, if
            it gives detections and ``evaluate`` is False, or if a layer was
            never calibrated.
        RuntimeError: If the checkpoint does not fit the config.
    """
    images = integer('images', images, 1)
    evaluate = boolean('evaluate', evaluate)
    cfg = deepcopy(cfg)
    split = bool(read_metadata(path)['rest'])
    runtime_cfg = runtime_model(cfg, path, checkpoint if split else None)
    runtime_cfg.integer_kernels = integer_kernels
    model: Any = load_detector(cfg, checkpoint)
    check_calibrated(model)
    exported = MODELS.build(runtime_cfg).eval()
    metadata = exported.runtime.metadata
    if metadata['nms'] and not evaluate:
        raise ValueError(
            f'{path} gives detections instead of raw outputs, and detections '
            'on a few images show too little. Type --map (evaluate=True), or '
            'verify an export without nms.'
        )
    loader = Runner.build_dataloader(cfg.test_dataloader)
    evaluators = [Evaluator(deepcopy(cfg.test_evaluator)) for _ in range(2)]
    for evaluator in evaluators:
        evaluator.dataset_meta = loader.dataset.metainfo
    checksum = weights_checksum(model.state_dict())
    found = Verification(same_weights=metadata['weights_sha256'] == checksum)
    seen = 0
    for batch in loader:
        data = model.data_preprocessor(batch, False)
        samples = data['data_samples']
        sides = _run(
            model,
            exported,
            exported.fit(data['inputs']),
            samples,
            found if seen < images else None,
        )
        seen += len(samples)
        if evaluate:
            for evaluator, side in zip(evaluators, sides):
                evaluator.process(
                    model.add_pred_to_datasample(samples, side), batch
                )
        elif seen >= images:
            break
    if evaluate:
        found.metrics = [e.evaluate(len(loader.dataset)) for e in evaluators]
    return found


def _run(
    model: Any,
    exported: Any,
    inputs: Tensor,
    samples: list,
    found: Verification | None,
) -> list[list[Any]]:
    """Detections of both sides; the differences are added to ``found``."""
    parts = parts_of(model)
    reference = parts.outputs(model, inputs)
    metadata, size = exported.runtime.metadata, inputs.shape[2:]
    ours = exported.decode(reference, samples, size)
    if metadata['nms']:
        theirs = exported.detect(inputs, samples)
    else:
        outputs = exported.outputs(inputs)
        theirs = exported.decode(outputs, samples, size)
    if found is None:
        return [ours, theirs]
    with changed_roundings(input_quantizers(model), CHANGE):
        changed = parts.outputs(model, inputs)
    if not metadata['nms']:
        sides = map(flatten, (reference, outputs, changed))
        found.add_outputs(flatten(metadata['outputs']), *sides)
    moved = exported.decode(changed, samples, size)
    for one, theirs_one, moved_one in zip(ours, theirs, moved):
        found.add_detections(one, theirs_one)
        found.add_own_detections(one, moved_one)
    return [ours, theirs]

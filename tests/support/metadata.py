"""Metadata of small files."""

import json

from mmgor.deploy.description.metadata import FORMAT


def small_metadata(**changes):
    """Metadata as JSON, of a file that takes one image of 16 x 24."""
    metadata = dict(
        format=FORMAT,
        version='0.0',
        model='RetinaNet',
        classes=[],
        input=dict(
            name='images',
            batch=1,
            channels=3,
            height=16,
            width=24,
            divisor=8,
        ),
        preprocessing={},
        outputs=['output_0'],
        nms=False,
        tensors='inputs',
        target=None,
        rest=[],
        weights_sha256='0' * 64,
        quantization=[],
        config=dict(
            model=dict(bbox_head={}),
            test_dataloader=dict(dataset=dict(pipeline=[])),
        ),
    )
    return json.dumps({**metadata, **changes})

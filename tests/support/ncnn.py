"""The two files of ncnn, with metadata."""

import json

from mmgor.deploy.description.metadata import FORMAT
from mmgor.deploy.description.ncnn import describe


def write_ncnn_files(layers, weights, path, **changes):
    """Write layers and weights; the input is one image of 16 x 24."""
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
        target='ncnn',
        weights_sha256='0' * 64,
        quantization=[],
        config=dict(
            model=dict(bbox_head={}),
            test_dataloader=dict(dataset=dict(pipeline=[])),
        ),
    )
    text = json.dumps({**metadata, **changes})
    path.write_text(describe(layers, weights, text))
    path.with_suffix('.bin').write_bytes(weights)
    return path

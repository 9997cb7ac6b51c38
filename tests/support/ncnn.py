"""The two files of ncnn, with metadata."""

from mmgor.deploy.description.ncnn import describe
from tests.support.metadata import small_metadata


def write_ncnn_files(layers, weights, path, **changes):
    """Write layers and weights; the input is one image of 16 x 24."""
    text = small_metadata(target='ncnn', **changes)
    path.write_text(describe(layers, weights, text))
    path.with_suffix('.bin').write_bytes(weights)
    return path

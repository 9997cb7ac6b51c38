"""The table of targets."""

import pytest

from mmgor.targets import TARGETS, find_target


def test_a_target_is_found_by_its_name():
    assert find_target('tensorrt') is TARGETS['tensorrt']


@pytest.mark.parametrize('name', ['tensort', None, ['rknn'], ''])
def test_an_unknown_name_lists_the_known_ones(name):
    with pytest.raises(ValueError, match=r"expected one of.*'x86'.*'ncnn'"):
        find_target(name)


def test_an_unknown_name_has_the_nearest_one():
    with pytest.raises(ValueError, match="did you mean 'tensorrt'"):
        find_target('tensort')


@pytest.mark.parametrize('name', TARGETS)
def test_a_target_is_complete(name):
    target = TARGETS[name]
    assert target.tensors in ('all', 'inputs')
    assert target.stored in ('int8', 'uint8', 'grid')
    assert target.clip in ('integer', 'float')
    assert (target.opset is not None) is ('.onnx' in target.suffixes)
    # int4 came with opset 21.
    assert not (target.int4 and target.opset) or target.opset >= 21
    # uint8 holds no negative integers around the zero point 0.
    assert not target.symmetric_inputs or target.stored == 'int8'
    assert target.rules
    for rule in target.rules:
        assert rule.text.endswith('.')
        assert rule.source.startswith(('https://', 'measured with'))


def test_no_target_has_a_scale_per_channel_of_activations():
    assert not any(t.per_channel_inputs for t in TARGETS.values())

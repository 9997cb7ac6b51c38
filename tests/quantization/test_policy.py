import pytest
import torch

from mmgor.quantization.policy import QuantPolicy, is_prediction_layer


@pytest.mark.parametrize(
    'name, expected',
    [
        ('retina_cls', True),
        ('multi_level_conv_obj.0', True),
        ('convs_pred.2', True),
        ('cls_score', True),
        ('atss_centerness', True),
        ('atss_iou', True),
        ('reg_branches.0.4', True),
        ('vfnet_reg_refine', True),
        ('cls_convs.0.conv', False),
        ('multi_level_cls_convs.0.0.conv', False),
    ],
)
def test_prediction_layer_names(name, expected):
    assert is_prediction_layer(name) is expected


def test_bits_of_tensors_that_are_not_rounded():
    assert QuantPolicy(tensors='all', tensor_bits=6).tensor_bits == 6
    assert QuantPolicy(target='litert', tensor_bits=6).tensor_bits == 6
    with pytest.raises(ValueError, match=r"bits=6 .*tensors='inputs'"):
        QuantPolicy(tensor_bits=6)


@pytest.mark.parametrize('target', [None, 'litert'])
@pytest.mark.parametrize('value', [None, False, [], torch.zeros(2)])
def test_tensors_of_another_kind(value, target):
    with pytest.raises(ValueError, match=r"tensors .*\['inputs', 'all'\]"):
        QuantPolicy(tensors=value, target=target)

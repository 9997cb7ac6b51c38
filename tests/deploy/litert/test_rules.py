import pytest

from mmgor.deploy.litert.rules import TFLiteFile, check_rules, module_path


def output_of(model, kind, index=0):
    found = [op for op in TFLiteFile(model).operators if op.kind == kind]
    return found[index].outputs[0]


@pytest.mark.parametrize('target', ['litert', 'ethos-u'])
def test_a_converted_network_keeps_all_rules(model, target, recwarn):
    check_rules(model, target, 'small.tflite')
    assert not recwarn.list


def weights_of(model, index):
    convs = [op for op in TFLiteFile(model).operators if op.kind == 'CONV_2D']
    return convs[index].inputs[1]


def test_weights_are_symmetric(model):
    weights_of(model, 1).quantization.zeroPoint[0] = 3
    match = (
        r'small\.tflite was not written, since litert could not run it in '
        r'integers: CONV_2D of block with a zero point of weights, expected 0'
    )
    with pytest.raises(ValueError, match=match):
        check_rules(model, 'litert', 'small.tflite')


def test_weights_are_integers(model):
    weights_of(model, 0).type = 0
    match = 'CONV_2D of stem with weights of float32, expected int8'
    with pytest.raises(ValueError, match=match):
        check_rules(model, 'litert', 'small.tflite')


def test_layers_give_integers(model):
    output_of(model, 'CONV_2D').type = 0
    match = 'CONV_2D of stem with a result that is not rounded'
    with pytest.raises(ValueError, match=match):
        check_rules(model, 'litert', 'small.tflite')


def test_joined_tensors_have_one_grid(model):
    output_of(model, 'MAX_POOL_2D').quantization.scale[0] = 0.5
    match = r'RESIZE_NEAREST_NEIGHBOR with the grids .*expected one'
    with pytest.raises(ValueError, match=match):
        check_rules(model, 'litert', 'small.tflite')


def test_other_operators_may_be_float_for_litert_only(model):
    output_of(model, 'ADD').type = 0
    with pytest.warns(UserWarning, match=r'computes in float: ADD'):
        check_rules(model, 'litert', 'small.tflite')
    with pytest.raises(ValueError, match='ADD, which computes in float'):
        check_rules(model, 'ethos-u', 'small.tflite')


def test_operators_that_the_npu_lacks(model):
    codes = model.operatorCodes
    (pooling,) = [c for c in codes if c.builtinCode == 17]
    pooling.builtinCode = pooling.deprecatedBuiltinCode = 47  # EXP
    match = 'EXP, which the NPU does not have'
    with pytest.raises(ValueError, match=match):
        check_rules(model, 'ethos-u', 'small.tflite')


@pytest.mark.parametrize(
    'name, path',
    [
        ('layer_backbone/conv1;', 'backbone.conv1'),
        ('layer;layer_neck/convs/0;layer_neck;2', 'neck.convs.0'),
        ('layer;', ''),
        ('output_0_1', ''),
        ('arith.constant1', ''),
    ],
)
def test_module_paths(name, path):
    assert module_path(name) == path

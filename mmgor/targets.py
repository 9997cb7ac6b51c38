"""What each runtime asks of a quantized network, in one table.

Training reads which tensors have to be rounded and how; export reads how they
are stored. Every rule has its source. Nothing here needs torch.
"""

from dataclasses import dataclass

from mmgor.io.config_values import choice


@dataclass(frozen=True)
class Rule:
    """One thing that a runtime asks for.

    Args:
        text (str): The rule, as one sentence.
        source (str): Where it is written, or 'measured with' and a version.
    """

    text: str
    source: str


@dataclass(frozen=True)
class Target:
    """A runtime that files are written for.

    Args:
        runs_on (str): The runtime and its devices, in words.
        suffixes (tuple[str, ...]): File names that it reads.
        rules (tuple[Rule, ...]): What it asks for.
        tensors (str): Which tensors are rounded: 'all', or 'inputs' (only
            those that a quantized layer reads).
        symmetric_inputs (bool): Activations have the zero point 0 and are
            stored as int8. So offsets are refused, and unsigned ranges have
            at most 7 bits.
        per_channel_inputs (bool): Activations may have a scale per channel.
        fuse_silu (bool): SiLU is computed in float inside the layer before. So
            what it reads is not rounded.
        stored (str): Type of the integers of activations: 'int8', 'uint8', or
            'grid' (uint8 for unsigned ranges, int8 for signed ones).
        clip (str): What limits a range that is smaller than the stored type:
            'integer' (a Clip of integers) or 'float' (a Clip of the values
            before they are rounded).
        relu_at_zero (bool): After a ReLU, the zero point has to be the
            smallest integer, so that nothing else can limit a range below.
        weight_zero_points (bool): Weights need a zero point, though it is 0.
        opset (int, optional): Opset of its ONNX files; None: it reads none.
        int4 (bool): Weights may be stored as int4.
        lacks (frozenset[str]): ONNX operators that it does not have.
    """

    runs_on: str
    suffixes: tuple[str, ...]
    rules: tuple[Rule, ...]
    tensors: str = 'all'
    symmetric_inputs: bool = False
    per_channel_inputs: bool = False
    fuse_silu: bool = False
    stored: str = 'int8'
    clip: str = 'float'
    relu_at_zero: bool = False
    weight_zero_points: bool = False
    opset: int | None = None
    int4: bool = False
    lacks: frozenset[str] = frozenset()


_NVIDIA = (
    'https://docs.nvidia.com/deeplearning/tensorrt/latest/'
    'inference-library/work-quantized-types.html'
)
_ONNX_TENSORRT = (
    'https://github.com/onnx/onnx-tensorrt/blob/main/docs/operators.md'
)
_RKNN = (
    'https://github.com/airockchip/rknn-toolkit2/blob/master/doc/'
    'RKNNToolKit2_OP_Support-2.3.2.md'
)
_LITERT = (
    'https://ai.google.dev/edge/litert/conversion/tensorflow/quantization/'
    'quantization_spec'
)
_VELA = (
    'https://gitlab.arm.com/artificial-intelligence/ethos-u/ethos-u-vela/'
    '-/blob/main/SUPPORTED_OPS.md'
)
_EXECUTORCH = (
    'https://docs.pytorch.org/executorch/stable/backends/xnnpack/'
    'xnnpack-quantization.html'
)
_QNN = (
    'https://onnxruntime.ai/docs/execution-providers/'
    'QNN-ExecutionProvider.html'
)
_X86 = 'measured with ONNX Runtime 1.31.1 and OpenVINO 2026.4.1'
_NCNN = 'https://github.com/Tencent/ncnn/wiki/quantized-int8-inference'
# Of the operators that the sources list as missing, those that torch's
# exporter may write for a detector.
_TENSORRT_LACKS = (
    'AffineGrid Bernoulli BitShift BitwiseAnd BitwiseNot BitwiseOr '
    'BitwiseXor CenterCropPad Col2Im Compress ConcatFromSequence '
    'ConvInteger DFT Det DynamicQuantizeLinear MatMulInteger MaxRoiPool '
    'MaxUnpool Multinomial Optional QLinearConv QLinearMatMul SequenceAt '
    'SequenceConstruct SequenceEmpty SequenceInsert SplitToSequence Unique'
)
_RKNN_LACKS = (
    'Abs Acos Acosh Asin Asinh Atan Atanh Bernoulli BitShift BitwiseAnd '
    'BitwiseNot BitwiseOr BitwiseXor CastLike Ceil Celu CenterCropPad '
    'Col2Im Compress ConcatFromSequence ConvInteger Cosh CumSum DFT '
    'DeformConv Det DynamicQuantizeLinear Einsum GatherND GlobalLpPool '
    'GridSample GroupNormalization Hardmax IsInf IsNaN Loop LpPool '
    'MatMulInteger Mean Multinomial Neg NonMaxSuppression NonZero Not '
    'OneHot Optional Or QLinearConv QLinearMatMul Range Reciprocal ReduceL1 '
    'ReduceL2 ReduceLogSum ReduceLogSumExp ReduceProd ReduceSumSquare RNN '
    'Round Scan ScatterElements Selu SequenceAt SequenceConstruct '
    'SequenceEmpty SequenceInsert Shrink Sign Sinh Softsign SplitToSequence '
    'Sum Tan ThresholdedRelu TopK Trilu Unique Xor'
)
_WEIGHTS = Rule(
    'Weights are int8 from -127 to 127 with the zero point 0, one scale per '
    'output channel.',
    _LITERT,
)
_ACTIVATIONS = Rule(
    'Activations are int8, one scale and zero point per tensor.', _LITERT
)
_UNIFIED = Rule(
    'Concatenation, resizing and max pooling have one grid for inputs and '
    'output.',
    _LITERT,
)
_SIGMOID = Rule(
    'The output of a sigmoid has the scale 1/256 and the zero point -128.',
    _LITERT,
)
_TFLITE = (_ACTIVATIONS, _WEIGHTS, _UNIFIED, _SIGMOID)

#: The targets by name.
TARGETS: dict[str, Target] = {
    'x86': Target(
        'ONNX Runtime and OpenVINO on x86 CPUs',
        ('.onnx', '.xml'),
        (
            Rule(
                'Activations have one scale per tensor: there are no integer '
                'kernels for a scale per channel.',
                _X86,
            ),
            Rule(
                'An .onnx file stores all activations as uint8: ONNX Runtime '
                'adds, multiplies and joins integers of one type only.',
                _X86,
            ),
            Rule(
                'An .xml file stores signed ranges as int8 with the zero '
                'point 0: OpenVINO computes with both, and that is faster.',
                _X86,
            ),
            Rule(
                'In an .onnx file, ranges below 8 bits behind a ReLU start at '
                'the integer 0 and have a Clip of integers: in front of '
                'another zero point, ONNX Runtime computes the ReLU in float.',
                _X86,
            ),
            Rule(
                'In an .xml file, they have a Clip of floats in place of the '
                'ReLU, which OpenVINO fuses into the layer.',
                _X86,
            ),
            Rule(
                'An .xml file does not round inside of SiLU: OpenVINO has '
                'layer, SiLU and rounding in one kernel.',
                _X86,
            ),
            Rule(
                'In an .onnx file, weights have a zero point: without one, '
                'ONNX Runtime computes linear layers in float.',
                _X86,
            ),
        ),
        stored='uint8',
        clip='integer',
        relu_at_zero=True,
        weight_zero_points=True,
        opset=21,
        int4=True,
    ),
    'tensorrt': Target(
        'TensorRT on NVIDIA GPUs and Jetson',
        ('.onnx',),
        (
            Rule('Activations and weights have the zero point 0.', _NVIDIA),
            Rule(
                'Integers are int8: uint8 is for inputs and outputs of the '
                'network only.',
                _ONNX_TENSORRT,
            ),
            Rule('Clip takes floats, not integers of 8 bits.', _ONNX_TENSORRT),
            Rule('Activations have one scale per tensor.', _NVIDIA),
            Rule(
                'Weights are int8 with one positive scale per output '
                'channel, read by DequantizeLinear and then by the layer.',
                _NVIDIA,
            ),
            Rule('Biases are float.', _NVIDIA),
            Rule(
                'Convolution, sigmoid and product are fused if nothing is '
                'rounded between them.',
                'https://github.com/NVIDIA/TensorRT/issues/3205',
            ),
            Rule(
                'The opset is at most 19, which TensorRT 9 and later read, '
                'JetPack included.',
                _ONNX_TENSORRT,
            ),
            Rule('Operators are those that the parser has.', _ONNX_TENSORRT),
        ),
        symmetric_inputs=True,
        fuse_silu=True,
        weight_zero_points=True,
        opset=19,
        lacks=frozenset(_TENSORRT_LACKS.split()),
    ),
    'litert': Target(
        'LiteRT (TensorFlow Lite) on phones and Arm CPUs',
        ('.tflite',),
        _TFLITE,
        int4=True,
    ),
    'ethos-u': Target(
        'Arm Ethos-U NPUs, after Vela has compiled the file',
        ('.tflite',),
        (
            *_TFLITE,
            Rule('Every operator is one that the NPU has.', _VELA),
        ),
    ),
    'xnnpack': Target(
        'ExecuTorch with XNNPACK on phones and CPUs',
        ('.pte',),
        (
            Rule(
                'Activations are int8, one scale and zero point per tensor.',
                _EXECUTORCH,
            ),
            Rule(
                'Weights are int8 with the zero point 0, one scale per '
                'output channel.',
                _EXECUTORCH,
            ),
            Rule(
                'Concatenation and pooling have one grid for inputs and '
                'output.',
                _EXECUTORCH,
            ),
        ),
    ),
    'qnn': Target(
        'Qualcomm QNN (QAIRT) on Hexagon NPUs',
        ('.onnx',),
        (
            Rule(
                'Activations are uint8 with any zero point, one scale per '
                'tensor.',
                _QNN,
            ),
            Rule('Weights are int8 with the zero point 0.', _QNN),
        ),
        stored='uint8',
        weight_zero_points=True,
        opset=19,
    ),
    'rknn': Target(
        'Rockchip NPUs, after rknn-toolkit2 has converted the file',
        ('.onnx',),
        (
            Rule('The opset is at most 19.', _RKNN),
            Rule('Operators are those that the converter has.', _RKNN),
            Rule(
                'Activations and weights have explicit zero points.',
                'measured with rknn-toolkit2 2.5.0',
            ),
            Rule(
                'Clip takes floats, not integers.',
                'measured with rknn-toolkit2 2.5.0',
            ),
        ),
        weight_zero_points=True,
        opset=19,
        lacks=frozenset(_RKNN_LACKS.split()),
    ),
    'ncnn': Target(
        'ncnn on Arm and x86 CPUs',
        ('.param',),
        (
            Rule(
                'Convolutions and linear layers read int8 from -127 to 127 '
                'with the zero point 0, one scale per tensor.',
                _NCNN,
            ),
            Rule(
                'Weights are int8 from -127 to 127, one scale per output '
                'channel.',
                _NCNN,
            ),
            Rule('All other operators compute in float.', _NCNN),
        ),
        tensors='inputs',
        symmetric_inputs=True,
    ),
}


def find_target(name: str) -> Target:
    """The target of a name.

    Args:
        name (str): A key of :data:`TARGETS`.

    Raises:
        ValueError: If there is none; the message lists all names and the one
            that is spelt most alike.
    """
    return TARGETS[choice('target', name, TARGETS)]

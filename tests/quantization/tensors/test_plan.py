"""Which grid each tensor gets, from tapes written by hand."""

from mmgor.quantization.tensors.operations import Kind
from mmgor.quantization.tensors.plan import LayerBits, Slot, make_plan
from mmgor.quantization.tensors.tape import Step, Tape


def own(layer, slot=0):
    return Slot(f'{layer}.input_quantizer', slot)


def new(name, slot=0):
    return Slot(f'tensor_quantizer.{name}', slot)


def planned(tape, bits, given=False, predictions=(), slots=1):
    layers = {name: LayerBits(count, slots) for name, count in bits.items()}
    outputs = dict.fromkeys(predictions, 8)
    return make_plan(tape, layers, given, outputs, 8, 4)


def test_a_sum_takes_the_grid_of_the_layer_that_reads_its_operand():
    """0 -conv1-> 1; 1 + 0 = 2 -conv2-> 3, all at 8 bits."""
    tape = Tape(
        steps=[
            Step(None, 'conv1', [0], [1]),
            Step(Kind.SUM, 'block', [1, 0], [2]),
            Step(None, 'conv2', [2], [3]),
        ],
        returned=[3],
    )
    plan = planned(tape, dict(conv1=8, conv2=8))
    assert plan.steps[0].reads == [new('block_sum'), own('conv1')]
    assert plan.steps[0].makes is None
    assert plan.reads == dict(conv1=[[own('conv1')]], conv2=[[own('conv2')]])
    assert plan.returned == [[new('output_0')]]
    assert plan.new == dict(block_sum=(8, 1), output_0=(4, 1))


def test_a_sum_reads_eight_bits_where_a_layer_reads_four():
    """0 -conv1-> 1; 1 + 0 = 2 -conv2-> 3. Only conv2 reads 2."""
    tape = Tape(
        steps=[
            Step(None, 'conv1', [0], [1]),
            Step(Kind.SUM, 'block', [1, 0], [2]),
            Step(None, 'conv2', [2], [3]),
        ],
        returned=[0, 2],
    )
    plan = planned(tape, dict(conv1=4, conv2=4))
    assert plan.steps[0].reads == [new('block_sum'), new('conv1')]
    assert plan.reads == dict(
        conv1=[[new('conv1'), own('conv1')]], conv2=[[own('conv2')]]
    )
    assert plan.returned == [[new('conv1'), own('conv1')], [own('conv2')]]
    assert plan.new == dict(conv1=(8, 1), block_sum=(8, 1))


def test_what_a_sum_reads_is_returned_with_the_bits_of_outputs():
    """0 + 1 = 2, 2 + 1 = 3; no layer reads 2."""
    tape = Tape(
        steps=[
            Step(Kind.SUM, 'first', [0, 1], [2]),
            Step(Kind.SUM, 'second', [2, 1], [3]),
        ],
        returned=[2, 3],
    )
    plan = planned(tape, {})
    assert plan.returned == [
        [new('second_sum'), new('output_0')],
        [new('output_1')],
    ]
    assert plan.new['second_sum'] == (8, 1)
    assert plan.new['output_0'] == plan.new['output_1'] == (4, 1)


def test_layers_that_read_one_tensor_share_a_quantizer():
    tape = Tape(
        steps=[
            Step(None, 'conv1', [0], [1]),
            Step(None, 'conv2', [0], [2]),
            Step(None, 'conv3', [1], [3]),
        ],
        returned=[2, 3],
    )
    plan = planned(tape, dict(conv1=4, conv2=4, conv3=4))
    assert plan.shared == dict(conv2='conv1')
    assert plan.reads['conv2'] == [[own('conv1')]]


def test_a_layer_of_fewer_bits_rounds_once_more():
    tape = Tape(
        steps=[
            Step(None, 'narrow', [0], [1]),
            Step(None, 'wide', [0], [2]),
            Step(Kind.SUM, '', [0, 1], [3]),
        ],
        returned=[2, 3],
    )
    plan = planned(tape, dict(narrow=4, wide=8))
    assert plan.shared == {}
    assert plan.reads['narrow'] == [[own('wide'), own('narrow')]]
    assert plan.reads['wide'] == [[own('wide')]]
    assert plan.steps[0].reads == [own('wide'), new('sum')]


def test_a_concatenation_and_what_it_reads_have_one_grid():
    """Through a pooling and a resize, too."""
    tape = Tape(
        steps=[
            Step(None, 'conv1', [0], [1]),
            Step(Kind.MOVE, 'pool', [1], [2]),
            Step(Kind.POOL, 'resize', [2], [3]),
            Step(Kind.CONCAT, 'cat', [1, 3], [4]),
            Step(None, 'conv2', [4], [5]),
        ],
        returned=[5],
    )
    plan = planned(tape, dict(conv1=8, conv2=4))
    for step in plan.steps:
        assert set(step.reads) == {own('conv2')}
        assert step.makes == own('conv2')
    assert plan.new == dict(output_0=(4, 1))


def test_given_tensors_keep_the_grid_that_they_come_with():
    """A concatenation rounds them to its own."""
    tape = Tape(
        steps=[
            Step(None, 'reduce', [0], [1]),
            Step(Kind.SUM, 'add', [0, 1], [2]),
            Step(Kind.MOVE, 'pool', [0], [3]),
            Step(Kind.CONCAT, 'cat', [3, 2], [4]),
            Step(None, 'conv', [4], [5]),
        ],
        given=[0],
        returned=[5, 0],
    )
    plan = planned(tape, dict(reduce=4, conv=4), given=True)
    add, pool, cat = plan.steps
    assert plan.given == {'reduce'} and 'reduce' not in plan.reads
    assert add.reads == [None, new('add_sum')] and not add.given
    assert pool.reads == [None] and pool.given
    assert cat.reads == [own('conv'), own('conv')]
    assert plan.returned == [[new('output_0')], []]


def test_sigmoids_have_the_fixed_grid():
    tape = Tape(
        steps=[
            Step(None, 'conv', [0], [1]),
            Step(Kind.SIGMOID, 'act', [1], [2]),
            Step(Kind.PRODUCT, 'act', [1, 2], [3]),
            Step(Kind.SILU, 'act2', [3], [4]),
        ],
        returned=[4],
    )
    plan = planned(tape, dict(conv=8))
    sigmoid, product, silu = plan.steps
    assert plan.fixed
    assert product.reads == [*sigmoid.reads, new('sigmoid')]
    assert sigmoid.reads == [new('act_sigmoid')]
    assert silu.makes == new('sigmoid')


def test_other_tensors_do_not_get_the_grid_of_a_sigmoid():
    """One is concatenated with it, or read by the same layer."""
    tape = Tape(
        steps=[
            Step(None, 'conv', [0], [1]),
            Step(Kind.SIGMOID, 'act', [1], [2]),
            Step(Kind.CONCAT, 'cat', [1, 2], [3]),
            Step(None, 'conv2', [3], [4]),
            Step(Kind.SIGMOID, 'act2', [4], [5]),
            Step(None, 'twice', [4], [6]),
            Step(None, 'twice', [5], [7]),
        ],
        returned=[6, 7],
    )
    plan = planned(tape, dict(conv=8, conv2=8, twice=8))
    sigmoid, cat, sigmoid2 = plan.steps
    assert sigmoid.reads == [own('conv2')]
    assert cat.reads == [own('conv2'), own('conv2')]
    assert cat.makes == own('conv2')
    assert sigmoid2.reads == [own('twice')]
    assert plan.reads['twice'] == [
        [own('twice')],
        [new('sigmoid'), own('twice')],
    ]


def test_a_relu_is_fused_unless_something_else_reads_its_operand():
    fused = Step(Kind.RELU, 'relu', [1], [2])
    conv1 = Step(None, 'conv1', [0], [1])
    conv2 = Step(None, 'conv2', [2], [3])
    plan = planned(
        Tape(steps=[conv1, fused, conv2], returned=[3]),
        dict(conv1=4, conv2=4),
    )
    assert plan.steps[0].reads == [None] and plan.steps[0].makes is None
    plan = planned(
        Tape(steps=[conv1, fused, conv2], returned=[3, 1]),
        dict(conv1=4, conv2=4),
    )
    assert plan.steps[0].reads == [own('conv2')]
    assert plan.steps[0].makes == own('conv2')
    assert plan.returned[1] == [own('conv2')]


def test_a_layer_of_several_levels_has_a_slot_for_each():
    tape = Tape(
        steps=[
            Step(None, 'cls', [0], [2]),
            Step(None, 'reg', [0], [3]),
            Step(None, 'cls', [1], [4]),
            Step(None, 'reg', [1], [5]),
        ],
        returned=[2, 4, 3, 5],
    )
    plan = planned(
        tape, dict(cls=4, reg=4), predictions=['cls', 'reg'], slots=2
    )
    assert plan.shared == dict(reg='cls')
    assert plan.reads['reg'] == [[own('cls', 0)], [own('cls', 1)]]
    assert plan.outputs['cls'] == [new('cls_output', i) for i in range(2)]
    assert plan.new == dict(cls_output=(8, 2), reg_output=(8, 2))
    assert plan.returned == []  # decoded values stay in float


def test_what_follows_prediction_layers_is_not_rounded():
    tape = Tape(
        steps=[
            Step(None, 'reg', [0], [1]),
            Step(Kind.PRODUCT, 'head', [1, 9], [2], decodes=True),
        ],
        returned=[2],
    )
    plan = planned(tape, dict(reg=8), predictions=['reg'])
    assert plan.steps[0].reads == [None, None]

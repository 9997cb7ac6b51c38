import copy

import pytest
import torch
from mmengine.model import ExponentialMovingAverage

from mmgor.quantization import (
    DoReFaQuantizer,
    LSQPlusQuantizer,
    LSQQuantizer,
    MinMaxQuantizer,
    PACTQuantizer,
    PassThrough,
    without_rounding,
)
from tests.support.quantizers import ready

INPUT_QUANTIZERS = [
    LSQQuantizer,
    LSQPlusQuantizer,
    PACTQuantizer,
    DoReFaQuantizer,
    MinMaxQuantizer,
]
WEIGHT_QUANTIZERS = [LSQQuantizer, DoReFaQuantizer, MinMaxQuantizer]


@pytest.mark.parametrize('bits', [1, 9, 4.0, True, None])
def test_bits_out_of_range(bits):
    with pytest.raises(ValueError, match='bits must be an integer from 2'):
        LSQQuantizer(bits)


@pytest.mark.parametrize('cls', INPUT_QUANTIZERS)
def test_uncalibrated_raises(cls):
    with pytest.raises(RuntimeError, match='never calibrated'):
        cls(4)(torch.rand(3))


@pytest.mark.filterwarnings('ignore::torch.jit.TracerWarning')
def test_an_uncalibrated_trace_is_that_of_the_float_network():
    quantizer, example = LSQQuantizer(4), torch.ones(3)
    with pytest.warns(UserWarning, match='that of the float network'):
        traced = torch.jit.trace(quantizer, example, check_trace=False)
    x = torch.tensor([0.1, -2.7, 31.4])
    assert torch.equal(traced(x), x)


@pytest.mark.parametrize('cls', INPUT_QUANTIZERS)
@pytest.mark.parametrize('bits', range(2, 9))
def test_inputs_land_on_the_grid(cls, bits):
    quantizer = ready(cls, bits)
    y = quantizer(torch.linspace(0, 100, 9999))
    levels = y / 0.1
    torch.testing.assert_close(levels, levels.round(), atol=1e-3, rtol=0)
    assert len(levels.round().unique()) == 2**bits


@pytest.mark.parametrize('cls', WEIGHT_QUANTIZERS)
def test_weight_levels_are_symmetric(cls):
    torch.manual_seed(0)
    weight = torch.randn(4, 500)
    weight = torch.cat([weight, -weight], 1)
    quantizer = ready(
        cls, 3, signed=True, num_scales=4, per_channel=True, for_weight=True
    )
    quantized = quantizer(weight)
    for row in quantized:
        assert len(row.unique()) == 7
        torch.testing.assert_close(row.max(), -row.min())


@pytest.mark.parametrize('cls', [LSQPlusQuantizer, PACTQuantizer])
def test_input_quantizers_refuse_weights(cls):
    with pytest.raises(ValueError, match='is for inputs'):
        cls(4, for_weight=True)


def test_slots_take_turns_and_reset():
    quantizer = ready(LSQQuantizer, 4, num_scales=3)
    quantizer.log_scale.data = torch.tensor([0.1, 1.0, 10.0]).log()
    x = torch.tensor(1000.0)
    assert [quantizer(x).item() for _ in range(4)] == pytest.approx(
        [1.5, 15.0, 150.0, 1.5]
    )
    quantizer.reset_slot()
    assert quantizer(x).item() == pytest.approx(1.5)


def test_state_dict_round_trip_keeps_range_and_scale():
    source = ready(LSQQuantizer, 4, signed=True)
    state = source.state_dict()
    assert all(isinstance(v, torch.Tensor) for v in state.values())
    target = LSQQuantizer(4)
    target.load_state_dict(state)
    assert target.calibrated and target.signed
    x = torch.randn(20)
    torch.testing.assert_close(target(x), source(x))


@pytest.mark.parametrize('stored, bits, signed', [(8, 4, False), (5, 4, True)])
def test_other_bits_count_as_uncalibrated(stored, bits, signed):
    # 5 bits signed and 4 bits unsigned share qmax = 15.
    target = LSQQuantizer(bits)
    target.load_state_dict(
        ready(LSQQuantizer, stored, signed=signed).state_dict(), strict=False
    )
    assert not target.calibrated


@pytest.mark.parametrize(
    'other',
    [
        ready(PACTQuantizer, 4),
        ready(MinMaxQuantizer, 4),
        ready(LSQPlusQuantizer, 4),
        ready(LSQQuantizer, 4, num_scales=5),
    ],
    ids=['PACT', 'MinMax', 'LSQ+', 'five slots'],
)
def test_other_quantizers_count_as_uncalibrated(other):
    target = LSQQuantizer(4)
    before = target.log_scale.clone()
    target.load_state_dict(other.state_dict(), strict=False)
    assert not target.calibrated
    assert torch.equal(target.log_scale, before)


@pytest.mark.parametrize('cls', INPUT_QUANTIZERS)
def test_empty_inputs_train(cls):
    quantizer = ready(cls, 4).train()
    x = torch.zeros(0, 4, requires_grad=True)
    quantizer(x).sum().backward()
    values = [*quantizer.buffers(), *quantizer.parameters()]
    values += [p.grad for p in quantizer.parameters() if p.grad is not None]
    assert all(torch.isfinite(v).all() for v in values)


@pytest.mark.parametrize('update_buffers', [False, True])
def test_ema_averages_scales_and_copies_ranges(update_buffers):
    quantizer = LSQQuantizer(4)
    ema = ExponentialMovingAverage(
        torch.nn.Sequential(quantizer),
        momentum=0.5,
        update_buffers=update_buffers,
    )
    live = copy.deepcopy(ema.module)
    live[0].choose_range(signed=True)
    live[0].log_scale.data.fill_(2.0)
    ema.update_parameters(live)
    live[0].log_scale.data.fill_(4.0)
    ema.update_parameters(live)
    assert ema.module[0].log_scale.item() == pytest.approx(3.0)
    assert int(ema.module[0].qmax) == 7
    assert ema.module[0].qmax.dtype == torch.int32


def test_rounding_is_off_in_a_block():
    """Observers are then as before, also after an error; slots start anew."""
    rounds, observed = LSQQuantizer(4), LSQQuantizer(4, num_scales=2)
    ready_one = ready(LSQQuantizer)
    observed.observer = kept = PassThrough()
    x = torch.tensor([0.123])
    every = torch.nn.ModuleList([rounds, observed, observed, ready_one])
    with pytest.raises(KeyError), without_rounding(every):
        for quantizer in (rounds, observed, ready_one):
            assert torch.equal(quantizer(x), x)
        raise KeyError
    assert observed.observer is kept
    assert observed._next_slot() == 0
    assert rounds.observer is None
    assert ready_one(x).item() == pytest.approx(0.1)

import pytest
import torch
from torch import nn

from mmgor.quantization import calibrate, uncalibrated_layers
from mmgor.quantization.convert import quantize_layers
from mmgor.quantization.policy import QuantPolicy
from mmgor.quantization.quantizers.observer import best_row_scales, best_scales


def small(**quant):
    module = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 2, 3)
    )
    quantize_layers(module, QuantPolicy(**quant), set())
    return module


def test_inputs_are_signed_if_the_data_is():
    module = small()
    calibrate(module, [torch.randn(2, 3, 12, 12)], module)
    assert module[0].input_quantizer.signed
    assert not module[3].input_quantizer.signed
    assert int(module[3].input_quantizer.qmax) == 15
    assert uncalibrated_layers(module) == []


def test_batch_norm_and_training_flag_are_put_back():
    module = small().eval()
    before = {k: v.clone() for k, v in module[1].state_dict().items()}
    calibrate(module, [torch.randn(2, 3, 12, 12) + 5], module)
    assert not module.training
    for key, value in module[1].state_dict().items():
        assert torch.equal(value, before[key])


class Counting(nn.Module):
    """Assigns a running mean to its buffer, as some losses of mmdet do."""

    def __init__(self):
        super().__init__()
        self.register_buffer('mean', torch.zeros(()))

    def forward(self, x):
        self.mean = 0.9 * self.mean + 0.1 * x.mean()
        return nn.functional.dropout(x)


def test_each_module_gets_its_own_training_flag_and_buffers_back():
    module = nn.Sequential(*small(), Counting(), nn.BatchNorm2d(2))
    module.train()
    module[1].eval()  # norm_eval
    mean = module[4].mean
    x = torch.randn(2, 3, 12, 12) + 5
    states = torch.get_rng_state()
    calibrate(module, [x], module)
    assert torch.equal(torch.get_rng_state(), states)
    assert [m.training for m in module] == [True, False] + 4 * [True]
    assert module[4].mean is mean and mean == 0
    assert module[5].running_mean.abs().max() == 0


def test_global_random_state_is_untouched():
    module = small()
    x = torch.randn(64, 3, 32, 32)
    state = torch.get_rng_state()
    calibrate(module, [x], module)
    assert torch.equal(torch.get_rng_state(), state)


def test_the_scale_has_the_least_squared_error():
    torch.manual_seed(0)
    row = torch.randn(5000)
    low, high = row.min()[None], row.max()[None]
    scale, offset = best_scales([row], low, high, -8, 7)

    def error(step):
        q = (row / step).round().clamp(-8, 7) * step
        return (q - row).square().sum().item()

    assert offset.item() == 0
    full = max(-low.item(), high.item()) / 7
    candidates = [full * k / 100 for k in range(1, 101)]
    brute = min(candidates, key=error)
    assert scale.item() == pytest.approx(brute)
    assert scale.item() < full


def test_an_offset_covers_a_short_negative_tail():
    x = nn.functional.silu(torch.linspace(-6, 6, 4000))
    low, high = x.min()[None], x.max()[None]
    scale, offset = best_scales([x], low, high, 0, 15, asymmetric=True)
    symmetric, _ = best_scales([x], low, high, -8, 7)
    assert offset.item() < 0
    assert scale.item() < 0.7 * symmetric.item()


def test_scales_of_rows_equal_those_of_single_searches():
    torch.manual_seed(0)
    rows = torch.randn(3, 400)
    scales = best_row_scales(rows, -7, 7)
    for row, scale in zip(rows, scales):
        want, _ = best_scales([row], row.min()[None], row.max()[None], -7, 7)
        assert scale.item() == pytest.approx(want.item())


@pytest.mark.parametrize('frozen', [False, True])
def test_errors_count_as_much_as_the_loss_depends_on_them(frozen):
    """Only the first channel reaches the loss: its error alone decides."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(2, 2, 1, bias=False), nn.Conv2d(2, 1, 1))
    module[0].weight.data = torch.tensor([[1.0, 0], [0, 40]])[..., None, None]
    module[1].weight.data = torch.tensor([[3.0, 0]])[..., None, None]
    module[0].requires_grad_(not frozen)
    quantize_layers(module, QuantPolicy(a_bits=4), set())
    x = torch.randn(1, 2, 40, 40)  # fewer values than are sampled

    def error(step):
        q = (x[:, 0] / step).round().clamp(-8, 7) * step
        return (q - x[:, 0]).square().sum().item()

    # The loss is a sum, so that all values of a channel count alike.
    calibrate(module, [x], lambda batch: module(batch).sum(), None, True)
    peak = max(-40 * float(x[:, 1].min()), 40 * float(x[:, 1].max())) / 7
    best = min((peak * k / 100 for k in range(1, 101)), key=error)
    found = module[1].input_quantizer.log_scale.exp().item()
    assert found == pytest.approx(best)
    calibrate(module, [x], module)
    assert module[1].input_quantizer.log_scale.exp().item() > 5 * found
    assert all(p.grad is None for p in module.parameters())


def test_a_layer_that_the_loss_ignores_counts_all_values_alike():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1))
    quantize_layers(module, QuantPolicy(), set())
    x = torch.randn(1, 3, 8, 8)

    def only_first(batch):
        first = module[0](batch)
        module[1](first)
        return first.sum()

    calibrate(module, [x], only_first, None, True)
    found = module[1].input_quantizer.log_scale.clone()
    calibrate(module, [x], module)
    assert torch.equal(found, module[1].input_quantizer.log_scale)


def test_zeros_get_scales_that_can_be_learned():
    module = nn.Sequential(nn.Conv2d(3, 4, 1))
    module[0].weight.data[1] = 0
    quantize_layers(module, QuantPolicy(), set())
    calibrate(module, [torch.zeros(1, 3, 4, 4)], module)
    weight_scales = module[0].weight_quantizer.log_scale.exp()
    others = weight_scales[[0, 2, 3]]
    assert weight_scales[1].item() == pytest.approx(others.median().item())
    # An unsigned range of 1 has steps of 1 / 15 at 4 bits.
    input_scale = module[0].input_quantizer.log_scale.exp().item()
    assert input_scale == pytest.approx(1 / 15)


def test_only_named_layers_are_calibrated():
    module = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1))
    quantize_layers(module, QuantPolicy(), set())
    calibrate(module, [torch.randn(1, 3, 4, 4)], module)
    kept = module[0].input_quantizer.log_scale.clone()
    old = module[1].input_quantizer.log_scale.clone()
    calibrate(module, [10 * torch.randn(1, 3, 4, 4)], module, ['1'])
    assert torch.equal(module[0].input_quantizer.log_scale, kept)
    assert not torch.equal(module[1].input_quantizer.log_scale, old)


@pytest.mark.parametrize('bad', [float('nan'), float('inf')])
def test_non_finite_values_are_refused(bad):
    module = nn.Sequential(nn.Conv2d(3, 4, 1)).eval()
    quantize_layers(module, QuantPolicy(), set())
    x = torch.randn(1, 3, 4, 4)
    x[0, 0, 0, 0] = bad
    with pytest.raises(ValueError, match=r'0 \(input\) is not finite'):
        calibrate(module, [x], module)
    assert not module.training
    module[0].weight.data[0, 0] = bad
    with pytest.raises(ValueError, match=r'0\.weight is not finite'):
        calibrate(module, [torch.randn(1, 3, 4, 4)], module)


def test_the_error_names_a_layer_that_did_not_run():
    module = nn.ModuleDict(dict(a=nn.Conv2d(3, 4, 1), b=nn.Conv2d(3, 4, 1)))
    quantize_layers(module, QuantPolicy(), set())
    model = nn.ModuleDict({'roi_head': nn.ModuleDict({'head': module})})
    told = r"not: \['roi_head\.head\.b'\].*overrides=\{\"b\": None\}"
    with pytest.raises(RuntimeError, match=told):
        calibrate(model, [torch.randn(1, 3, 4, 4)], module['a'])
    assert module['a'].input_quantizer.observer is None

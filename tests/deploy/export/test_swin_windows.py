import torch
from mmdet.models.backbones.swin import ShiftWindowMSA

from mmgor.deploy.export.swin_windows import join_windows, make_swin_traceable


def test_equals_mmdets():
    layer = ShiftWindowMSA(8, 2, window_size=4)
    windows = torch.arange(3 * 6 * 4 * 4 * 5.0).view(18, 4, 4, 5)
    wanted = layer.window_reverse(windows, 8, 12)
    got = join_windows(4, windows, 8, 12)
    assert got.shape == (3, 8, 12, 5)
    assert torch.equal(got, wanted)
    make_swin_traceable(layer)
    assert torch.equal(layer.window_reverse(windows, 8, 12), wanted)

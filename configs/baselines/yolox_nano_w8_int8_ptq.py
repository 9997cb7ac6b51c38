"""As yolox_nano_w8_int8.py, calibrated and not trained.

Weights and batch norms are fitted to rounding, which training finds by
itself (docs/results/yolox_nano.md).
"""

_base_ = './yolox_nano_w8_int8.py'

train_cfg = dict(_delete_=True, type='CalibrationLoop', max_epochs=0)
custom_hooks = [
    dict(
        _base_.calibration,
        correct_norms=True,
        compensate_weights=True,
    )
]

"""As yolox_nano_w4.py, calibrated and not trained. Batch norms learn what
rounded layers give them."""

_base_ = './yolox_nano_w4.py'

train_cfg = dict(_delete_=True, type='CalibrationLoop', max_epochs=0)
custom_hooks = [
    dict(
        type='QuantCalibrationHook',
        correct_norms=True,
        compensate_weights=True,
    )
]

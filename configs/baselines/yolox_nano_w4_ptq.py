"""As yolox_nano_w4.py, calibrated and not trained."""

_base_ = './yolox_nano_w4.py'

train_cfg = dict(_delete_=True, type='CalibrationLoop', max_epochs=0)
custom_hooks = [{{_base_.calibration}}]

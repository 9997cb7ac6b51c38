"""mmdet's default runtime with mmgor registered."""

_base_ = 'mmdet::_base_/default_runtime.py'
custom_imports = dict(imports=['mmgor'], allow_failed_imports=False)
default_hooks = dict(checkpoint=dict(type='SafeCheckpointHook'))

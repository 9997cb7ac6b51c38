"""mmdet's default runtime, mmgor's registered classes and its checkpoint hook,
which writes atomically, with a checksum."""

_base_ = 'mmdet::_base_/default_runtime.py'
custom_imports = dict(imports=['mmgor'], allow_failed_imports=False)
default_hooks = dict(checkpoint=dict(type='SafeCheckpointHook'))

"""Distillation losses: how far the student is from a teacher.

A KD head (``mmgor.distillation.heads``) brings the outputs of student and
teacher to one layout and calls a loss of this folder. Each file has pure
functions, and below them the registered modules that call them.

- ``class_kl``, ``two_way_kl``, ``top_k_kl``: losses on class scores, for
  ``LogitKDHead`` and ``ScoreKDHead``.
- ``features``, ``learned_features``: losses on feature maps, without and
  with parameters of their own, for ``FeatureKDHead``.
- ``location_weights``: how much each location counts.

To add a feature loss, write a module that takes two feature maps of shape
(N, C, H, W) and returns a scalar, and register it::

    @MODELS.register_module()
    class FeatureL1Loss(nn.Module):
        def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
            return (student - teacher).abs().mean()

A config names it in its KD head::

    kd_heads=dict(
        neck=dict(
            type='FeatureKDHead',
            student_channels=256,
            loss=dict(type='FeatureL1Loss'),
        )
    )

With the class attribute ``needs_channels = True`` the head passes the
teacher's number of channels to the constructor as ``channels``.

To add a loss on class scores, derive from :class:`~.class_kl.ForwardKL` and
override ``binary`` (sigmoid scores) and ``categorical`` (softmax scores).

The file must be imported before the config is built: import it in
``mmgor/distillation/__init__.py``, or name it in ``custom_imports`` of the
config. To distil something else than features or class scores, derive a KD
head from :class:`~mmgor.distillation.heads.base.BaseKDHead`. CONTRIBUTING.md
walks through a new loss and its test.
"""

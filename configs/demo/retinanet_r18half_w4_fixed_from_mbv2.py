"""QAT with one teacher and a fixed weight, to compare GoR with."""

_base_ = './retinanet_r18half_w4_from_mbv2.py'
model = dict(gor_weighting=dict(_delete_=True, type='FixedWeighting'))

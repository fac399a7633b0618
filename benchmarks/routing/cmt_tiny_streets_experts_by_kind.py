"""`cmt_tiny_streets_experts.py` with an expert for each kind of LiDAR damage."""

_base_ = '../../configs/cmt/cmt_tiny_streets_experts.py'

custom_imports = dict(
    imports=['projects.cmt_aqr', 'benchmarks.routing.experts_by_kind'], allow_failed_imports=False
)
model = dict(type='KindExpertDetector', experts=dict(lidar=None, camera=None))

"""A planner on a detector that is frozen as a whole."""

planner = dict(type='ActionQueryHead', num_queries=16)
frozen_detector = {
    part: dict(frozen=True)
    for part in (
        'img_backbone',
        'img_neck',
        'pts_voxel_encoder',
        'pts_middle_encoder',
        'pts_backbone',
        'pts_neck',
        'pts_bbox_head',
    )
}

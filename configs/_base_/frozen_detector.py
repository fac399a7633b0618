"""A detector that is frozen as a whole, for what is trained beside it."""

frozen_detector = {
    part: dict(frozen=True, norm_eval=True)
    for part in (
        'img_backbone', 'img_neck', 'pts_voxel_encoder', 'pts_middle_encoder', 'pts_backbone',
        'pts_neck', 'pts_bbox_head',
    )
}  # fmt: skip

"""Facts of a sample that reach the model and the metrics."""

meta_keys = (
    'sample_idx', 'token', 'lidar_path', 'lidar2img', 'img_shape', 'pad_shape', 'box_type_3d',
    'box_mode_3d', 'camera_names',
)  # fmt: skip

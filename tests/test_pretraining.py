"""Dense labels of image tokens against hand-placed boxes, and the training on them."""

import math

import numpy as np
import pytest
import torch
from mmdet3d.structures import Det3DDataSample, LiDARInstance3DBoxes
from mmengine.structures import InstanceData

from projects.cmt_aqr.pretraining import (
    ImageTokenPretrainer,
    ray_box_depths,
    token_rays,
    token_targets,
)

IMAGE = (32, 48)
FOCAL = 24.0
# A camera at the origin of the LiDAR frame that looks along +y: u grows with x, v against z.
CAM2IMG = np.array(
    [[FOCAL, 0, IMAGE[1] / 2, 0], [0, FOCAL, IMAGE[0] / 2, 0], [0, 0, 1, 0], [0, 0, 0, 1]]
)
LIDAR2CAM = np.array([[1.0, 0, 0, 0], [0, 0, -1, 0], [0, 1, 0, 0], [0, 0, 0, 1]])
FORWARD = CAM2IMG @ LIDAR2CAM
BACKWARD = CAM2IMG @ LIDAR2CAM @ np.diag([-1.0, -1, 1, 1])


def boxes(*rows: list[float]) -> LiDARInstance3DBoxes:
    """Boxes of x, y, z of the bottom centre, sizes, yaw."""
    return LiDARInstance3DBoxes(torch.tensor(rows).reshape(-1, 7))


def targets(truth, labels, per_side=1, lidar2img=(FORWARD,), map_size=(4, 6)):
    return token_targets(
        rays=token_rays(map_size, IMAGE, per_side, torch.zeros(())),
        lidar2img=torch.from_numpy(np.stack(lidar2img)),
        boxes=truth,
        labels=torch.tensor(labels, dtype=torch.long),
        num_classes=3,
    )


def test_rays_pass_through_the_centres():
    rays = token_rays((4, 6), IMAGE, 1, torch.zeros(()))
    assert rays.shape == (24, 1, 3)
    assert rays[0, 0].tolist() == [4.0, 4.0, 1.0]
    assert rays[7, 0].tolist() == [12.0, 12.0, 1.0]


def test_several_rays_stay_in_their_cell():
    rays = token_rays((4, 6), IMAGE, 2, torch.zeros(()))
    assert rays.shape == (24, 4, 3)
    assert rays[7, :, :2].tolist() == [[10, 10], [14, 10], [10, 14], [14, 14]]


def test_labels_of_a_box_ahead():
    # 4 m wide and 2 m high with its near face 10 m ahead, so 9.6 x 4.8 pixels around the centre.
    found = targets(boxes([0, 11, -1, 4, 2, 2, 0]), [1], map_size=(16, 24))
    labels = found.labels.reshape(16, 24)
    shown = (labels == 1).nonzero()
    assert shown.amin(dim=0).tolist() == [7, 10]
    assert shown.amax(dim=0).tolist() == [8, 13]
    assert len(shown) == 2 * 4
    assert (labels == 3).sum() == 16 * 24 - len(shown)
    depths = found.log_depths.reshape(16, 24)
    torch.testing.assert_close(depths[labels == 1], torch.full((8,), math.log(10.0)))
    assert depths[labels == 3].eq(0).all()


def test_the_nearest_box_counts():
    near, far = [0, 6, -1, 2, 2, 2, 0], [0, 20, -30, 60, 2, 60, 0]
    for truth, names in ((boxes(near, far), [0, 2]), (boxes(far, near), [2, 0])):
        found = targets(truth, names, map_size=(16, 24))
        labels = found.labels.reshape(16, 24)
        assert labels[8, 12] == 0
        assert labels[0, 0] == 2
        assert found.log_depths.reshape(16, 24)[8, 12].exp().item() == pytest.approx(5.0)


def test_yaw_turns_counter_clockwise():
    long_box = [0, 10, -1, 8, 0.5, 2, math.pi / 4]
    rays = torch.tensor([[0.0, 16, 1], [24.0, 16, 1], [48.0, 16, 1]])
    img2lidar = torch.from_numpy(np.linalg.inv(FORWARD)).float()[None]
    depths = ray_box_depths(rays, img2lidar, boxes(long_box))[0, :, 0]
    # Its axis y = 10 + x meets the ray to the left (y = -x) at y = 5, outside; the axis leaves
    # through x = 2.83, y = 12.8; straight ahead the face lies 0.25 * sqrt(2) before the centre.
    assert depths[0].isinf()
    assert depths[1].item() == pytest.approx(10 - 0.25 * math.sqrt(2), abs=1e-4)
    assert depths[2].isinf()
    mirrored = ray_box_depths(
        torch.tensor([[18.0, 16, 1], [30.0, 16, 1]]), img2lidar, boxes(long_box)
    )[0, :, 0]
    assert mirrored[0] < 10 < mirrored[1]


def test_depth_agrees_with_the_corners():
    truth = boxes([3, 12, -2, 4, 2, 3, 0.6])
    corners = truth.corners[0].double().numpy()
    scaled = np.c_[corners, np.ones(8)] @ FORWARD.T
    nearest = scaled[:, 2].min()
    found = targets(truth, [0], map_size=(64, 96))
    hit = found.labels == 0
    depths = found.log_depths[hit].exp()
    assert depths.min().item() == pytest.approx(nearest, abs=0.1)
    assert depths.max().item() < scaled[:, 2].max()


def test_boxes_behind_or_round_the_camera_are_not_seen():
    assert targets(boxes([0, -11, -1, 4, 2, 2, 0]), [0]).labels.eq(3).all()
    assert targets(boxes([0, 0, -1, 4, 4, 2, 0]), [0]).labels.eq(3).all()
    behind = boxes([0, -11, -3, 4, 2, 6, 0])
    found = targets(behind, [0], lidar2img=(FORWARD, BACKWARD), map_size=(16, 24))
    assert found.labels[0].eq(3).all()
    assert found.labels[1].eq(0).any()


def test_more_rays_see_narrow_boxes():
    cone = boxes([0.3, 8, -0.6, 0.3, 0.3, 0.8, 0])
    assert targets(cone, [2]).labels.eq(3).all()
    found = targets(cone, [2], per_side=8)
    assert found.labels.eq(2).any()
    assert found.log_depths[found.labels == 2].exp().min().item() == pytest.approx(7.85, abs=1e-3)


@pytest.mark.parametrize('labels', [[], [-1], [3]])
def test_no_boxes_of_any_class(labels):
    found = targets(boxes(*[[0, 11, -1, 4, 2, 2, 0]] * len(labels)), labels)
    assert found.labels.eq(3).all()
    assert found.log_depths.eq(0).all()


def test_a_scaled_scene_keeps_its_depth():
    """An image shows the same depth however the scene was augmented."""
    scale = np.diag([2.0, 2, 2, 1])
    found = targets(
        boxes([0, 22, -2, 8, 4, 4, 0]),
        [1],
        lidar2img=(FORWARD @ np.linalg.inv(scale),),
        map_size=(16, 24),
    )
    depths = found.log_depths[found.labels == 1].exp()
    torch.testing.assert_close(depths, torch.full_like(depths, 10.0))
    assert len(depths) == 8


def pretrainer(**kwargs) -> ImageTokenPretrainer:
    return ImageTokenPretrainer(
        img_backbone=dict(
            type='VoVNet',
            spec_name='V-19-slim-eSE',
            width=0.125,
            out_features=('stage3', 'stage4'),
            num_stages=3,
            norm_eval=False,
        ),
        img_neck=dict(type='CPFPN', in_channels=[32, 48], out_channels=16, num_outs=2),
        num_classes=3,
        **kwargs,
    )


def sample(truth: LiDARInstance3DBoxes, labels: list[int], views: int = 2) -> Det3DDataSample:
    out = Det3DDataSample(metainfo=dict(lidar2img=np.stack([FORWARD, BACKWARD][:views])))
    out.gt_instances_3d = InstanceData(
        bboxes_3d=truth, labels_3d=torch.tensor(labels, dtype=torch.long)
    )
    return out


def painted(found_labels: torch.Tensor) -> torch.Tensor:
    """Images (B, V, 3, H, W) that show the labels (B, V, 4 * 6), one colour for each."""
    colours = torch.eye(4)[:, :3] + torch.arange(4)[:, None] * 0.1
    images = colours[found_labels].reshape(*found_labels.shape[:2], 4, 6, 3)
    return images.repeat_interleave(8, 2).repeat_interleave(8, 3).permute(0, 1, 4, 2, 3)


def test_training_learns_the_tokens():
    model = pretrainer()
    model.init_weights()
    model.train()
    samples = [
        sample(boxes([0, 11, -4, 6, 2, 8, 0], [0, -8, -4, 4, 2, 8, 0]), [0, 1]),
        sample(boxes([3, 9, -4, 4, 2, 8, 0]), [2]),
    ]
    labels = model._targets(samples, torch.zeros(2, 2, 16, 4, 6), IMAGE).labels
    assert {0, 1, 2, 3} == set(labels.unique().tolist())
    inputs = dict(imgs=painted(labels))
    optimizer = torch.optim.AdamW(model.parameters(), 5e-3)
    totals = []
    for _ in range(40):
        losses = model(inputs, samples, mode='loss')
        total, log = model.parse_losses(losses)
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        totals.append(total.item())
    assert totals[-1] < 0.3 * totals[0]
    assert log['box_accuracy'] > 0.9
    assert log['background_accuracy'] > 0.9
    assert log['log_depth_error'] < 0.3


def test_without_boxes_and_with_fewer_cameras():
    model = pretrainer().train()
    samples = [sample(boxes(), []), sample(boxes([0, -8, -4, 4, 2, 8, 0]), [1], views=1)]
    targets_ = model._targets(samples, torch.zeros(2, 2, 16, 4, 6), IMAGE)
    assert targets_.labels[0].eq(3).all()
    assert targets_.labels[1, 0].eq(3).all()
    assert targets_.labels[1, 1].eq(-1).all()
    losses = model.loss(dict(imgs=torch.randn(2, 2, 3, *IMAGE)), samples)
    assert losses['loss_token_box'] == 0
    assert losses['loss_token_depth'] == 0
    total, _ = model.parse_losses(losses)
    total.backward()
    gradients = [p.grad for p in model.token_head.parameters()]
    assert all(g is not None and g.isfinite().all() for g in gradients)


def test_weights_are_named_as_in_cmt():
    prefixes = {key.split('.')[0] for key in pretrainer().state_dict()}
    assert prefixes == {'img_backbone', 'img_neck', 'token_head'}


def test_grid_mask_is_built():
    model = pretrainer(grid_mask=dict(type='GridMask', prob=1.0))
    assert model.grid_mask.prob == 1.0


def test_errors_say_what_to_do():
    model = pretrainer()
    with pytest.raises(NotImplementedError, match='val_cfg'):
        model.predict({}, [])
    with pytest.raises(ValueError, match='has no images'):
        model.loss({}, [])
    with pytest.raises(ValueError, match='rays_per_side=0'):
        pretrainer(rays_per_side=0)

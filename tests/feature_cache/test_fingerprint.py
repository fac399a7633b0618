"""Everything that determines a feature changes its key, and nothing else does."""

import copy
from dataclasses import dataclass

import pytest
import torch
from freezable import second
from torch import nn

from projects.cmt_aqr.datasets.failures import DrawnFailure
from projects.cmt_aqr.datasets.failures.lidar import DrawnBeamReduction, DrawnLidarDrop
from projects.cmt_aqr.feature_cache.fingerprint import fingerprint_modules, sample_key


def digest(module: nn.Module) -> str:
    return fingerprint_modules({'pts_backbone': module})


@pytest.fixture
def module() -> nn.Module:
    torch.manual_seed(0)
    return second()


CHANGES = {
    'weight': lambda m: next(m.parameters()).data.view(-1)[3].add_(1e-7),
    'buffer': lambda m: m.blocks[0][1].running_mean[0].add_(1e-7),
    'eps': lambda m: setattr(m.blocks[0][1], 'eps', 1.0),
    'stride': lambda m: setattr(m.blocks[1][0], 'stride', (1, 1)),
    'class': lambda m: m.blocks[0].add_module('2', nn.LeakyReLU(inplace=True)),
    'option': lambda m: setattr(m, 'out_indices', (1,)),
}


@pytest.mark.parametrize('change', CHANGES.values(), ids=CHANGES)
def test_a_change_of_the_module_changes_its_digest(module, change):
    before = digest(module)
    change(module)
    assert digest(module) != before


def test_copies_and_modes_have_the_same_digest(module):
    before = digest(module)
    assert digest(copy.deepcopy(module)) == before
    assert digest(module.eval().requires_grad_(False)) == before
    rebuilt = second()
    rebuilt.load_state_dict(module.state_dict())
    assert digest(rebuilt) == before


def test_half_precision_has_a_digest(module):
    assert digest(module.bfloat16()) != digest(module.float())


@dataclass(frozen=True)
class CameraFailure(DrawnFailure):
    strength: float

    def damage_image(self, image, camera):
        return image * 0


@dataclass(frozen=True)
class AlteringFailure(DrawnFailure):
    def alter(self, results):
        results['token'] = 'other'


def sample(*failures: DrawnFailure, **changes: object) -> dict:
    results = dict(
        token='t',
        lidar_points=dict(lidar_path='a.bin'),
        lidar_sweeps=[dict(lidar_points=dict(lidar_path='b.bin'))],
        images=dict(CAM_FRONT=dict(img_path='a.jpg', cam2img=[[1.0]])),
        timestamp=1.0,
        failures=[*failures],
        draw=3,
    )
    return {**results, **changes}


def keys(*failures: DrawnFailure, **changes: object) -> tuple[str, str]:
    results = sample(*failures, **changes)
    return sample_key('lidar', results, 'load'), sample_key('camera', results, 'load')


def test_draws_and_annotations_without_influence_keep_the_keys():
    assert keys() == keys(draw=7, ann_info=dict(boxes=1), sample_idx=4)


@pytest.mark.parametrize(
    ('failure', 'same'),
    [
        (DrawnBeamReduction((1, 2), 32), (False, True)),
        (CameraFailure(0.5), (True, False)),
        (AlteringFailure(), (False, False)),
    ],
)
def test_a_failure_changes_the_keys_of_the_sensors_it_acts_on(failure, same):
    pairs = zip(keys(failure), keys(), strict=True)
    assert tuple(damaged == clean for damaged, clean in pairs) == same


def test_the_strength_of_a_failure_is_in_the_key():
    assert keys(CameraFailure(0.5))[1] != keys(CameraFailure(0.6))[1]


@pytest.mark.parametrize(
    ('change', 'same'),
    [
        (dict(lidar_points=dict(lidar_path='c.bin')), (False, True)),
        (dict(lidar_sweeps=[]), (False, True)),
        (dict(images=dict(CAM_FRONT=dict(img_path='a.jpg', cam2img=[[2.0]]))), (True, False)),
        (dict(token='u'), (False, False)),
    ],
)
def test_a_change_of_the_record_changes_the_key_of_its_sensor(change, same):
    pairs = zip(keys(**change), keys(), strict=True)
    assert tuple(changed == as_before for changed, as_before in pairs) == same


def test_the_sizes_of_the_files_are_in_the_key(tmp_path):
    cloud, image = tmp_path / 'a.bin', tmp_path / 'a.jpg'
    record = dict(
        lidar_points=dict(lidar_path=str(cloud)), images=dict(CAM=dict(img_path=str(image)))
    )
    found = [keys(**record)]
    for file in (cloud, image):
        file.write_bytes(b'12345')
        found.append(keys(**record))
    lidar, camera = zip(*found, strict=True)
    assert lidar[0] != lidar[1] == lidar[2]
    assert camera[0] == camera[1] != camera[2]
    record['lidar_sweeps'] = [dict(lidar_points=dict(lidar_path=str(tmp_path / 'b.bin')))]
    before = keys(**record)
    (tmp_path / 'b.bin').write_bytes(b'123')
    assert keys(**record)[0] != before[0]
    assert keys(**record)[1] == before[1]


def test_a_change_of_loading_changes_the_key():
    assert sample_key('lidar', sample(), 'load') != sample_key('lidar', sample(), 'other')


def test_all_emptied_clouds_share_a_key():
    emptied = DrawnLidarDrop('empty')
    assert keys(emptied)[0] == keys(emptied, token='u')[0]
    assert keys(emptied)[1] != keys(emptied, token='u')[1]
    zeros = DrawnLidarDrop('zeros')  # as many points as there were
    assert keys(zeros)[0] != keys(zeros, token='u')[0]

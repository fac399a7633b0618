"""The routed head waits for the device only where it lists visible pairs."""

import pytest
import torch
from pretend_device import DEVICE, PretendDevice
from small_head import GRID, aqr_config, head_config, make_head, random_batch, wake, with_health

FORMS = {
    'bias': ({'routing': 'BiasRouting'}, ['folded', 'grouped', 'dense']),
    'local': ({'routing': 'BiasRouting', 'scope': 'local'}, ['window', 'dense']),
    'both': ({'routing': 'BiasRouting', 'scope': 'both'}, ['window', 'dense']),
    'gate': ({}, ['auto', 'grouped', 'window', 'dense']),
    'mix': ({'routing': 'MixRouting'}, ['grouped', 'dense']),
    'hard choice': (
        {
            'type': 'HardChoiceRouter',
            'routing': 'HardChoiceRouting',
            'weights': {'type': 'ExpertLogits'},
        },
        ['folded', 'grouped'],
    ),
    'modulation': ({'type': 'FeatureModulationRouter', 'routing': None}, ['auto']),
}
CASES = [
    pytest.param(options, backend, id=f'{form}-{backend}')
    for form, (options, backends) in FORMS.items()
    for backend in backends
]


@pytest.mark.parametrize(('options', 'backend'), CASES)
@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
def test_a_step_waits_for_the_visible_pairs_alone(options, backend, dtype):
    """One camera of the last sample is absent. A tensor left on the host is an error."""
    options = aqr_config(**{'reliability_weight': 1.0, **options})
    transformer = {**head_config()['transformer'], 'attention': backend}
    head = make_head(aqr=options, voxel_grid=GRID, transformer=transformer)
    wake(head)
    bev, images, samples = random_batch()
    samples[-1].set_metainfo({'lidar2img': samples[-1].metainfo['lidar2img'][:1]})
    *_, health = with_health((bev, images, samples), lidar=0.5)
    metas = [sample.metainfo for sample in samples]
    with PretendDevice() as device:
        head.to(DEVICE)
        bev, images = bev.to(DEVICE), images.to(DEVICE)
        health = {sensor: maps.to(DEVICE) for sensor, maps in health.items()}
        device.waits.clear()
        with torch.autocast(DEVICE.type, dtype=dtype, enabled=dtype != torch.float32):
            output = head(bev, images, metas)
            loss = sum(head.router.loss(output.router, health).values())
        (loss + sum(x.float().square().mean() for x in output.tasks[0].values())).backward()
        assert all(p.grad is not None for p in head.router.parameters())
    assert device.waits == {'geometry.py:visible_pairs': 2}

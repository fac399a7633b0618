"""What is refused before anything is built, and what is left to the classes."""

import pytest
from mmengine.config import Config
from mmengine.registry import MODELS

from projects.cmt_aqr.cli.config_checks import check_config
from projects.cmt_aqr.usage_error import UsageError


@MODELS.register_module()
class HandsOn:
    """Takes any options, for another object than its base class."""

    def __init__(self, depth: int = 1, **kwargs) -> None:
        self.rest = dict(kwargs)


def refusal(**settings: object) -> str:
    with pytest.raises(UsageError) as error:
        check_config(Config(settings))
    return str(error.value).partition(': ')[2]


def test_all_faults_are_named():
    optimizer = dict(type='AdamW', lrr=1)
    assert refusal(model=dict(type='CmtDetecter'), optim_wrapper=dict(optimizer=optimizer)) == (
        'model: CmtDetecter is not a registered model; did you mean CmtDetector?; '
        'optim_wrapper.optimizer: AdamW has no option lrr; did you mean lr?'
    )


def test_a_class_with_open_options_lacks_a_misspelt_one_only():
    check_config(Config(dict(model=dict(type='HandsOn', anything=1))))
    assert refusal(model=dict(type='HandsOn', dept=1)) == (
        'model: HandsOn has no option dept; did you mean depth?'
    )


def test_names_that_only_a_builder_knows_are_left_to_it():
    norm = dict(type='BN', requires_grad=True)
    backbone = dict(type='SECOND', norm_cfg=norm, frozen=True, freeze_ratio=0.5)
    check_config(Config(dict(model=dict(type='MVXTwoStageDetector', pts_backbone=backbone))))
    check_config(Config(dict(model=dict(type='HandsOn', part=dict(type='a table of its own')))))
    # A base config of another scope gives types without it.
    check_config(Config(dict(model=dict(type='ResNet', _scope_='mmdet'))))


def test_settings_of_the_runner_are_no_options_of_the_classes():
    check_config(
        Config(
            dict(
                train_dataloader=dict(batch_size=1, num_batch_per_epoch=3),
                optim_wrapper=dict(constructor='x', paramwise_cfg={}, accumulative_counts=2),
                param_scheduler=dict(type='LinearLR', convert_to_iter_based=True),
                custom_hooks=[dict(type='EMAHook', priority='LOW')],
                randomness=dict(seed=1),
            )
        )
    )


@pytest.mark.parametrize(
    ('loop', 'refused'),
    [
        (dict(max_epochs=4, val_interval=4), False),
        (dict(max_epochs=4, val_interval=5), True),
        (dict(max_epochs=4, val_interval=5, val_begin=5), False),
    ],
)
def test_validation_is_not_switched_off_by_its_interval(loop, refused):
    loop = dict(type='EpochBasedTrainLoop', **loop)
    check_config(Config(dict(train_cfg=loop, val_cfg=None)))
    if refused:
        assert 'set val_begin=5' in refusal(train_cfg=loop, val_cfg=dict(type='ValLoop'))
    else:
        check_config(Config(dict(train_cfg=loop, val_cfg=dict(type='ValLoop'))))


def test_a_best_score_of_a_known_metric_is_checked():
    def settings(score: object, **metric: object) -> dict:
        return dict(
            val_dataloader=dict(dataset=dict(metainfo=dict(classes=['car']))),
            val_evaluator=dict(type='NuScenesMetric', **metric),
            default_hooks=dict(checkpoint=dict(type='CheckpointHook', save_best=score)),
        )

    place = 'pred_instances_3d_NuScenes'
    for score in (
        'auto',
        f'NuScenes metric/{place}/NDS',
        [f'NuScenes metric/{place}/car_AP_dist_0.5'],
    ):
        check_config(Config(settings(score)))
    check_config(Config(settings(f'mine/{place}/NDS', prefix='mine')))
    assert refusal(**settings('NDS')).endswith(f'did you mean NuScenes metric/{place}/NDS?')
    assert 'no score' in refusal(**settings(f'NuScenes metric/{place}/truck_AP_dist_0.5'))


def test_options_of_other_projects_are_refused():
    """Of NuScenesDataset and of a transform in the configs of others."""
    loader = dict(dataset=dict(type='NuScenesDataset', num_views=6))
    assert 'NuScenesDataset has no option num_views; its' in refusal(train_dataloader=loader)
    loader = dict(dataset=dict(pipeline=[dict(type='PointShuffle', backend_args=None)]))
    assert refusal(train_dataloader=loader) == (
        'train_dataloader.dataset.pipeline.0: PointShuffle has no option backend_args; its options '
        'are none'
    )

"""A config that would be stopped when it trains is refused, for the same reasons, without it."""

import json
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from torch import nn

import projects.cmt_aqr  # noqa: F401
from projects.cmt_aqr.freezing.audit import Kind
from projects.cmt_aqr.freezing.verify import Verification, verify

WEIGHTS = 'projects/cmt_aqr/weights/cmt_tiny_synthetic.pth'


@pytest.fixture
def cfg(repo_root) -> Config:
    """The shipped tiny CMT, fine-tuned with its backbones frozen."""
    cfg = Config.fromfile(repo_root / 'configs/cmt/cmt_tiny_synthetic_finetune.py')
    cfg.load_from = str(repo_root / WEIGHTS)
    return cfg


def check(cfg: Config) -> Verification:
    return verify(cfg, epoch_length=20)


def violations(cfg: Config) -> dict[Kind, set[str]]:
    found = check(cfg)
    assert found.describe()['state'] == 'violated'
    return {violation.kind: set(violation.names) for violation in found.violations}


def below(found: Verification, *parts: str) -> set[str]:
    return {name for name in found.frozen.loadable if name.startswith(parts)}


class HandFrozen(nn.Module):
    """A norm without gradient that nothing keeps in evaluation mode."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(2).requires_grad_(False)
        self.conv = nn.Conv2d(2, 2, 1)


def test_a_run_in_order_passes(cfg):
    found = check(cfg)
    assert found.violations == []
    assert set(found.filled.values()) == {cfg.load_from}
    assert set(found.filled) >= set(found.frozen.loadable)
    trainable = sum(p.requires_grad for p in found.model.parameters())
    assert found.optimizer == dict(groups=8, trainable=trainable, frozen=0, left_out=0)
    table = {row.part: row for row in found.table}
    assert (table['img_backbone'].trainable, table['img_backbone'].rate) == (0, None)
    neck = table['img_neck'].rate
    assert neck['start'] == pytest.approx((2.5e-6, 2.5e-6))
    assert neck['highest'] == pytest.approx((2.5e-5, 2.5e-5), rel=0.02)
    assert neck['end'] == pytest.approx((2.5e-8, 2.5e-8), rel=0.2)


def test_text_tells_all_of_it(cfg):
    lines = [' '.join(line.split()) for line in str(check(cfg)).splitlines()]
    assert f'pts_backbone 36 36 {cfg.load_from}' in lines
    assert any(line.startswith('optimizer: 8 groups of ') for line in lines)
    assert 'in evaluation mode after train(): 125 of the 125 modules that must be' in lines


def test_description_is_that_of_a_run(cfg):
    description = json.loads(json.dumps(check(cfg).describe()))
    assert description['state'] == 'passed'
    assert description['unfilled'] == description['violations'] == []
    assert description['filled_from'] == {cfg.load_from: 90 + 78 + 36 + 6}
    assert description['modules'][0]['part'] == 'data_preprocessor'


def test_no_checkpoint(cfg):
    cfg.load_from = None
    found = check(cfg)
    assert found.filled == {}
    (violation,) = found.violations
    assert (violation.kind, set(violation.names)) == (Kind.UNFILLED, set(found.frozen.loadable))


@pytest.fixture
def half(cfg, tmp_path) -> Config:
    """The same with a checkpoint that lacks ``pts_backbone``."""
    checkpoint = torch.load(cfg.load_from, weights_only=True)
    for name in [name for name in checkpoint['state_dict'] if name.startswith('pts_backbone.')]:
        del checkpoint['state_dict'][name]
    torch.save(checkpoint, tmp_path / 'half.pth')
    cfg.load_from = str(tmp_path / 'half.pth')
    return cfg


def test_half_loaded_checkpoint(half):
    found = check(half)
    (violation,) = found.violations
    assert violation.kind is Kind.UNFILLED
    assert set(violation.names) == below(found, 'pts_backbone.')
    assert 'pts_backbone: all 36 tensors' in violation.details


def test_what_the_audit_of_the_config_allows_may_stay_unfilled(half):
    half.custom_hooks = [dict(type='FreezeAuditHook', allow_unfilled=['pts_backbone'])]
    assert check(half).violations == []


def test_optimizer_that_holds_frozen_parameters(cfg):
    cfg.optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='AdamW', lr=1e-4))
    found = check(cfg)
    (violation,) = found.violations
    assert violation.kind is Kind.IN_OPTIMIZER
    frozen = {name for name, p in found.model.named_parameters() if not p.requires_grad}
    assert set(violation.names) == frozen
    assert found.optimizer['frozen'] == len(frozen)


def test_schedule_that_overrides_multipliers(cfg):
    cfg.param_scheduler = [dict(type='CosineAnnealingLR', T_max=10, eta_min=1e-4)]
    found = check(cfg)
    (violation,) = found.violations
    assert violation.kind is Kind.RATES_OVERRIDDEN
    assert 'use eta_min_ratio=0.2 instead of eta_min=0.0001' in violation.details
    assert {row.part: row for row in found.table}['img_neck'].rate['end'][0] > 2.5e-5


def test_module_that_nothing_keeps_in_evaluation_mode(cfg):
    cfg.model = dict(type=HandFrozen)
    cfg.optim_wrapper = dict(
        constructor='StrictOptimWrapperConstructor', optimizer=dict(type='SGD', lr=0.1)
    )
    assert violations(cfg)[Kind.IN_TRAINING_MODE] == {'norm'}


def test_a_run_by_iterations(cfg):
    cfg.train_cfg = dict(type='IterBasedTrainLoop', max_iters=40)
    cfg.param_scheduler = [dict(type='MultiStepLR', by_epoch=False, milestones=[30], gamma=0.1)]
    rate = {row.part: row for row in check(cfg).table}['img_neck'].rate
    assert rate['start'] == pytest.approx((2.5e-5,) * 2)
    assert rate['end'] == pytest.approx((2.5e-6,) * 2)


def test_mixed_precision_is_checked_without_a_gpu(cfg):
    cfg.optim_wrapper.merge(dict(type='AmpOptimWrapper', dtype='bfloat16', loss_scale='dynamic'))
    assert check(cfg).violations == []
    assert cfg.optim_wrapper.type == 'AmpOptimWrapper'


def test_a_run_without_a_length(cfg):
    cfg.train_cfg = dict(by_epoch=True)
    with pytest.raises(ValueError, match=r'train_cfg has {}; it must have one of max_epochs, max_'):
        check(cfg)


def test_build_errors_are_passed_on(cfg):
    cfg.optim_wrapper.paramwise_cfg.custom_keys.img_neck.lr_mult = 0.0
    with pytest.raises(ValueError, match=r"custom_keys\['img_neck'\]: lr_mult is 0"):
        check(cfg)


class TestUnfreezing:
    @pytest.fixture
    def schedule(self, cfg) -> dict:
        """Of the image backbone, which the model's config leaves trainable."""
        cfg.model.img_backbone.frozen = False
        cfg.optim_wrapper.paramwise_cfg.custom_keys.img_backbone = dict(lr_mult=0.01)
        phases = {0: dict(frozen=True), 3: 1}
        hook = dict(type='UnfreezeScheduleHook', module='img_backbone', schedule=phases)
        cfg.custom_hooks = [hook]
        return phases

    def test_the_first_phase_is_checked(self, cfg, schedule):
        found = check(cfg)
        assert found.violations == []
        assert {row.part: row for row in found.table}['img_backbone'].trainable == 0
        assert found.optimizer['frozen'] == 0

    def test_frozen_in_the_first_phase_must_be_filled(self, cfg, schedule):
        cfg.load_from = None
        assert any(name.startswith('img_backbone.') for name in violations(cfg)[Kind.UNFILLED])

    def test_later_phases_must_fit(self, cfg, schedule):
        cfg.custom_hooks[0].schedule[5] = dict(unfreeze_layers=[20])
        with pytest.raises(ValueError, match=r'img_backbone \(.*\): unfreeze_layers.* 20'):
            check(cfg)


def test_no_file_is_written(cfg, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    check(cfg)
    assert not list(Path(tmp_path).iterdir())

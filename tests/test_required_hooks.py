"""A training that lacks a hook stops in its first step, whoever starts it."""

from types import SimpleNamespace

import pytest
import torch
from mmdet3d.registry import MODELS
from mmengine.config import Config
from mmengine.model import MMDistributedDataParallel
from torch import nn
from toy_runner import ToyModel, make_runner

from projects.cmt_aqr.freezing import FreezeAuditHook, FreezePolicy, freeze
from projects.cmt_aqr.required_hooks import RequiresHooks
from projects.cmt_aqr.running_hooks import note_running, running_hooks

LOSSES = dict(loss_cls=torch.tensor(1.0), loss_bbox=torch.tensor(2.0), matched=torch.tensor(7.0))


class HalfFrozen(RequiresHooks, ToyModel):
    """The toy model with a frozen part that takes no part in its output."""

    def __init__(self) -> None:
        super().__init__()
        self.base = freeze(nn.Linear(1, 1), FreezePolicy(frozen=True))


def audit() -> FreezeAuditHook:
    return FreezeAuditHook(allow_unfilled=['base'])


def test_a_runner_without_the_hook_is_stopped_with_the_line_to_add(tmp_path):
    with pytest.raises(
        RuntimeError,
        match=r'without FreezeAuditHook, which verifies that the frozen parts of base do not '
        r'change; '
        r"add dict\(type='FreezeAuditHook'\) to the custom_hooks",
    ):
        make_runner(tmp_path, model=HalfFrozen()).train()


def test_a_runner_with_the_hook_trains(tmp_path):
    runner = make_runner(tmp_path, model=HalfFrozen(), custom_hooks=[audit()])
    runner.optim_wrapper['constructor'] = 'StrictOptimWrapperConstructor'
    runner.train()
    assert runner.model.line.weight.item() != 0
    assert running_hooks(runner.model) == {'FreezeAuditHook'}


def distributed_step(model: nn.Module) -> None:
    """``train_step`` of mmengine's wrapper, without a process group."""
    wrapper = SimpleNamespace(
        module=model,
        detect_anomalous_params=False,
        _run_forward=lambda data, mode: model(**data, mode=mode),
    )
    optimizer = SimpleNamespace(
        optim_context=lambda _: torch.no_grad(), update_params=lambda _: None
    )
    data = dict(inputs=torch.ones(2, 1), data_samples=torch.ones(2, 1))
    MMDistributedDataParallel.train_step(wrapper, data, optimizer)


def test_the_step_of_a_distributed_model_is_checked_too():
    model = HalfFrozen()
    with pytest.raises(RuntimeError, match='without FreezeAuditHook'):
        distributed_step(model)
    note_running(nn.DataParallel(model), 'FreezeAuditHook')
    distributed_step(model)


@pytest.mark.parametrize(
    ('config', 'needed'),
    [
        ('cmt/cmt_tiny_synthetic', []),
        ('cmt/cmt_tiny_synthetic_finetune', ['FreezeAuditHook']),
        ('cmt_aqr/cmt_aqr_tiny_synthetic_failures', ['FreezeAuditHook']),
        ('cmt_aqr/cmt_aqr_tiny_synthetic_failures_bias', ['FreezeAuditHook', 'BiasScaleHook']),
        ('cmt_aqr/cmt_aqr_tiny_synthetic_failures_mix', ['FreezeAuditHook', 'BiasScaleHook']),
    ],
)
def test_what_the_models_of_the_configs_need(repo_root, config, needed):
    model = MODELS.build(Config.fromfile(repo_root / f'configs/{config}.py').model)
    for hook in needed:
        with pytest.raises(RuntimeError, match=f'without {hook}, which '):
            model.parse_losses(LOSSES)
        note_running(model, hook)
    loss, log = model.parse_losses(LOSSES)
    assert loss == 3
    assert log.keys() == {'loss', *LOSSES}


def test_frozen_scales_need_no_hook(repo_root):
    cfg = Config.fromfile(repo_root / 'configs/cmt_aqr/cmt_aqr_tiny_synthetic.py')
    cfg.merge_from_dict(cfg.recipes.full_rate)
    cfg.model.pts_bbox_head.aqr.routing.type = 'BiasRouting'
    model = MODELS.build(cfg.model)
    model.pts_bbox_head.router.attention_bias_generator.requires_grad_(False)
    model.parse_losses(LOSSES)

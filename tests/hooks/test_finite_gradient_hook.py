"""A gradient that is not finite ends the run before it reaches the weights."""

import json
import warnings
from pathlib import Path

import pytest
import torch
from mmengine.optim import OptimWrapper
from toy_runner import ToyModel, make_runner

from projects.cmt_aqr.hooks import FiniteGradientHook, finite_gradient_hook

# Two iterations an epoch. A root of nothing, added in this forward pass, leaves the loss as it is.
BAD = 2


class RootModel(ToyModel):
    """A line whose gradient breaks in the third forward pass, or in all from there on."""

    def __init__(self, *, for_good: bool = False) -> None:
        super().__init__()
        self.for_good = for_good
        self.passes = 0

    def forward(self, inputs, data_samples, mode='tensor'):
        losses = super().forward(inputs, data_samples, mode)
        if mode == 'loss':
            if self.passes == BAD or (self.for_good and self.passes > BAD):
                losses['loss_root'] = (0 * self.line.bias).abs().sqrt().sum()
            self.passes += 1
        return losses


def run(tmp_path: Path, model=None, *, hook=None, **options):
    runner = make_runner(
        tmp_path, epochs=3, model=model, custom_hooks=[hook or FiniteGradientHook()], **options
    )
    return runner, runner.train


def kept(runner) -> dict:
    return json.loads((Path(runner.log_dir) / 'not_finite_rank0.json').read_text())


def test_the_run_stops_without_the_step_and_says_where(tmp_path):
    runner, train = run(tmp_path, RootModel())
    with pytest.raises(FloatingPointError) as error:
        train()
    message = str(error.value)
    assert message.startswith('the gradient is not finite in epoch 2, iteration 3\n')
    assert '  loss_root: 0\n' in message
    assert '  line.bias: nan' in message
    assert 'line.weight: nan' not in message
    saved = torch.load(tmp_path / 'epoch_1.pth')['state_dict']
    torch.testing.assert_close(runner.model.state_dict(), saved, rtol=0, atol=0)
    assert kept(runner)['iteration'] == 3
    assert kept(runner)['gradients'].keys() == {'line.weight', 'line.bias'}


def test_clipping_does_not_hide_it(tmp_path):
    runner, train = run(tmp_path, RootModel())
    runner.optim_wrapper['clip_grad'] = dict(max_norm=1.0)
    with pytest.raises(FloatingPointError, match='iteration 3'):
        train()
    assert all(value.isfinite().all() for value in runner.model.state_dict().values())


def test_with_accumulation_all_samples_of_the_step_are_named(tmp_path, monkeypatch):
    def names(samples: list) -> list[str]:  # the toy's are the y of the line
        return [f'y={y.item():g}' for y in samples]

    monkeypatch.setattr(finite_gradient_hook, 'sample_names', names)
    runner, train = run(tmp_path, RootModel())
    runner.optim_wrapper['accumulative_counts'] = 2
    with pytest.raises(FloatingPointError, match='iteration 4'):
        train()
    # Both batches of the second epoch, none of the first.
    assert sorted(kept(runner)['samples']) == ['y=0', 'y=2', 'y=4', 'y=6']


def test_finite_gradients_train_as_without_the_hook(tmp_path):
    runner, train = run(tmp_path / 'with')
    with warnings.catch_warnings():
        warnings.filterwarnings('error', 'Seems like')  # of mmengine's, when steps are not counted
        train()
    plain = make_runner(tmp_path / 'without', epochs=3)
    plain.train()
    torch.testing.assert_close(runner.model.state_dict(), plain.model.state_dict(), rtol=0, atol=0)


class ScaledWrapper(OptimWrapper):
    """In so far as the hook looks at a loss scale: there is one, and bad steps are left out."""

    loss_scaler = 'there'

    def step(self, **kwargs) -> None:
        parameters = [p for group in self.optimizer.param_groups for p in group['params']]
        if all(parameter.grad.isfinite().all() for parameter in parameters):
            super().step(**kwargs)


def test_a_loss_scale_may_leave_out_steps(tmp_path):
    runner, train = run(tmp_path, RootModel(), hook=FiniteGradientHook(max_skipped=1))
    runner.optim_wrapper['type'] = ScaledWrapper
    train()
    assert runner.iter == 6


def test_a_loss_scale_that_skips_every_step_ends_the_run(tmp_path):
    model = RootModel(for_good=True)
    runner, train = run(tmp_path, model, hook=FiniteGradientHook(max_skipped=2))
    runner.optim_wrapper['type'] = ScaledWrapper
    with pytest.raises(FloatingPointError, match=r'for 3 steps in a row in epoch 3, iteration 5'):
        train()


def test_a_negative_number_is_refused():
    with pytest.raises(ValueError, match='max_skipped is -1'):
        FiniteGradientHook(max_skipped=-1)

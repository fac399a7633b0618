"""Wrong uses: each ends a tool with status 2 and one line, which docs/faq.md explains."""

# ruff: noqa: E501  (the table has one row a line)

import json
import pickle
import re
import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

REPO_ROOT = Path(__file__).resolve().parents[2]
TOY = """
custom_imports = dict(imports=['projects.cmt_aqr', 'toy_runner'], allow_failed_imports=False)
default_scope = 'mmdet3d'
model = dict(type='ToyModel')
lr = 0.01
batch_size = 2
loader = dict(dataset=dict(type='ToyDataset'), batch_size=batch_size, num_workers=0,
              sampler=dict(type='DefaultSampler', shuffle=False),
              collate_fn=dict(type='default_collate'))
train_dataloader = val_dataloader = test_dataloader = loader
val_evaluator = test_evaluator = dict(type='CountMetric')
max_epochs = 2
train_cfg = dict(by_epoch=True, max_epochs=max_epochs)
val_cfg = test_cfg = dict()
optim_wrapper = dict(optimizer=dict(type='AdamW', lr=lr))
param_scheduler = [dict(type='CosineAnnealingLR', T_max=max_epochs, eta_min_ratio=0.1)]
default_hooks = dict(checkpoint=dict(type='CheckpointHook', interval=1))
custom_hooks = [dict(type='RunInfoHook'), dict(type='FiniteLossHook')]
"""
DATA = """
custom_imports = dict(imports=['projects.cmt_aqr'], allow_failed_imports=False)
default_scope = 'mmdet3d'
model = dict(type='ToyModel')
data_root = 'data/'
modality = dict(use_lidar=True, use_camera=True)
dataset = dict(type='NuScenesDataset', data_root=data_root, ann_file='infos.pkl', pipeline=[],
               modality=modality, metainfo=dict(version='v1.0-mini', classes=['car']))
train_dataloader = val_dataloader = dict(dataset=dataset, batch_size=1)
val_evaluator = dict(type='NuScenesMetric', data_root=data_root, ann_file=data_root + 'infos.pkl',
                     modality=modality)
train_cfg = dict(by_epoch=True, max_epochs=2)
val_cfg = dict()
optim_wrapper = dict(optimizer=dict(type='AdamW', lr=0.01))
"""
CMT = REPO_ROOT / 'configs/cmt/cmt_tiny_synthetic.py'
CHANGED = 'is changed, but its base has already used the old value in'
SCHEDULE = '--resume keeps schedule and precision of the run that it continues, but'
NEW_RUN = 'or start a new run with --cfg-options load_from=HERE/work_dirs/toy/epoch_2.pth'
IMAGE = dict(img_path='a.jpg', cam2image=[], lidar2cam=[])


@HOOKS.register_module()
class PressCtrlC(Hook):
    """Interrupts a training in its third step."""

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        if runner.iter == 2:
            raise KeyboardInterrupt


class Mistake(NamedTuple):
    """A wrong command, by what was prepared in its folder, and the last line on stderr.

    ``{}`` is a config of this project, and HERE the folder. A line that ends open, such as in '(',
    is a beginning. A dict has the text of files by name. A command of a subcommand has its name as
    ``prog``.
    """

    command: str
    line: str
    before: dict[str, str] | Callable[[], None] = {}
    status: int = 2
    prog: str | None = None


def child(text: str = '', base: object = 'toy.py') -> dict[str, str]:
    """A config that inherits from another one."""
    return {'child.py': f"_base_ = ['{base}']\n{text}\n"}


def pickled(content: object) -> Callable[[], None]:
    """Writes an info file."""

    def write() -> None:
        Path('data').mkdir()
        Path('data/infos.pkl').write_bytes(pickle.dumps(content))

    return write


def weights(**shapes: list[int]) -> Callable[[], None]:
    """Writes weights of the layer of the toy model."""

    def write() -> None:
        state = {f'line.{name}': torch.zeros(shape) for name, shape in shapes.items()}
        torch.save(dict(state_dict=state), 'some.pth')

    return write


def trained() -> None:
    """Trains the toy model in work_dirs/toy."""
    assert call('train.py', 'toy.py') == 0


def truncated() -> None:
    torch.save(dict(state_dict={'line.bias': torch.zeros(1000)}), 'half.pth')
    Path('half.pth').write_bytes(Path('half.pth').read_bytes()[:2000])


def with_code() -> None:
    torch.save(dict(state_dict={}, meta=print), 'code.pth')


def full_disk() -> None:
    """Lets the first checkpoint be written to a device without space."""
    Path('work_dirs/toy').mkdir(parents=True)
    Path('work_dirs/toy/epoch_1.pth').symlink_to('/dev/full')


TABLE = [
    # The command line.
    Mistake('train.py', 'the following arguments are required: config (all options: --help)'),
    Mistake('train.py toy.py --work-dirr x', 'unknown argument --work-dirr; did you mean --work-dir? (all options: --help)'),
    Mistake('train.py toy.py --cfg-options foo', '--cfg-options foo: give KEY=VALUE, such as model.x=1 (all options: --help)'),
    Mistake('train.py toy.py --cfg-options x=[1', '--cfg-options x=[1: unbalanced brackets; write key="[a,b]" (all options: --help)'),
    Mistake('train.py toy.py --launcher pytorch', '--launcher pytorch: RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT not set in the environment; start several processes by tools/dist_train.sh or torchrun, or leave out --launcher'),
    Mistake('train.py toy.py --launcher slurm', '--launcher slurm: SLURM_PROCID, SLURM_NTASKS, SLURM_NODELIST not set in the environment; start several processes by srun, or leave out --launcher'),
    Mistake('train.py toy.py --auto-scale-lr', '--auto-scale-lr needs auto_scale_lr.base_batch_size in the config'),
    Mistake('train.py toy.py --amp --cfg-options optim_wrapper.type=ApexOptimWrapper', '--amp applies to optim_wrapper.type OptimWrapper, not ApexOptimWrapper'),
    # Config files.
    Mistake('train.py tou.py', 'config tou.py does not exist; did you mean toy.py?'),
    Mistake('train.py child.py', 'config child.py: its _base_ toi.py does not exist; did you mean toy.py?', child(base='toi.py')),
    Mistake('train.py child.py', "config child.py: line 2: '(' was never closed", child('model = dict(')),
    Mistake('train.py child.py', "config child.py: HERE/child.py, line 2: NameError: name 'deep' is not defined", child('model = dict(depth=deep)')),
    Mistake('train.py child.py', 'config child.py: the environment variable CMT_AQR_CONFIGS is not set: export CMT_AQR_CONFIGS=$(python -m projects.cmt_aqr.paths configs)', child(base='{{$CMT_AQR_CONFIGS:}}/cmt/cmt_tiny_synthetic.py')),
    Mistake('train.py child.py', 'config child.py: custom_imports: Failed to import my_project.own; start from the folder that holds it, or set PYTHONPATH', child("custom_imports = dict(imports=['my_project.own'])")),
    Mistake('train.py child.py', 'config child.py: load_form has no effect, since nothing reads it; did you mean load_from?', child("load_form = 'x.pth'")),
    Mistake('train.py child.py', 'config child.py: param_schedulers has no effect, since nothing reads it; did you mean param_scheduler?', child('param_schedulers = []')),
    Mistake('train.py child.py', 'config child.py: custom_hook has no effect, since nothing reads it; did you mean custom_hooks?', child('custom_hook = []')),
    Mistake('train.py child.py', 'config child.py: device has no effect; use the environment variable CUDA_VISIBLE_DEVICES', child("device = 'cuda:1'")),
    Mistake('train.py child.py', 'config child.py: lr_config is of MMDetection3D 0.x and has no effect: use param_scheduler, with every end as a ratio (eta_min_ratio)', child("lr_config = dict(policy='cyclic')")),
    Mistake('train.py child.py', f'config child.py: data_root {CHANGED} train_dataloader.dataset.data_root, val_dataloader.dataset.data_root, test_dataloader.dataset.data_root: change these too, or give data_root by --cfg-options, which changes all', child("data_root = '/datasets/mine/'", base=CMT)),
    Mistake('train.py child.py', f'config child.py: point_cloud_range {CHANGED} train_dataloader.dataset.pipeline.9.point_cloud_range, train_dataloader.dataset.pipeline.10.point_cloud_range, val_dataloader.dataset.pipeline.4.point_cloud_range and 2 more: change these too, or give point_cloud_range by --cfg-options, which changes all', child('point_cloud_range = [-40.0, -40.0, -3.0, 40.0, 40.0, 3.0]', base=CMT)),
    Mistake('train.py child.py', 'config child.py: version has no effect, since nothing reads it; put it where it belongs, or remove it', child("version = 'v1.0-trainval'", base=CMT)),
    Mistake('train.py child.py', f'config child.py: class_names {CHANGED} train_dataloader.dataset.pipeline.11.classes, train_dataloader.dataset.metainfo.classes, val_dataloader.dataset.metainfo.classes and 2 more: change these too, or give class_names by --cfg-options, which changes all', child("class_names = ['car', 'truck']", base=CMT)),
    Mistake('train.py toy.py --cfg-options learning_rate=0.1', '--cfg-options learning_rate: learning_rate has no effect, since nothing reads it; put it where it belongs, or remove it'),
    Mistake('train.py toy.py --cfg-options custom_hooks.7.type=EMAHook', "--cfg-options custom_hooks.7.type=EMAHook: Index 7 exceeds the length of list [{'type': 'RunInfoHook'}, {'type': 'FiniteLossHook'}]"),
    # Names in a config.
    Mistake('train.py {} --cfg-options model.type=CmtDetecter', 'config {}: model: CmtDetecter is not a registered model; did you mean CmtDetector?'),
    Mistake('train.py {} --cfg-options model.pts_bbox_head.num_querry=300', 'config {}: model.pts_bbox_head: CmtHead has no option num_querry; did you mean num_query?'),
    Mistake('train.py {} --cfg-options model.img_backbone.dept=50', 'config {}: model.img_backbone: mmdet.ResNet has no option dept; did you mean depth?'),
    Mistake('train.py {} --cfg-options model.img_backbone.frozen_stage=1', 'config {}: model.img_backbone: mmdet.ResNet has no option frozen_stage; did you mean frozen_stages?'),
    Mistake('train.py {} --cfg-options optim_wrapper.optimizer.type=AdamWW', 'config {}: optim_wrapper.optimizer: AdamWW is not a registered optimizer; did you mean AdamW?'),
    Mistake('train.py {} --cfg-options optim_wrapper.optimizer.weight_decy=0.1', 'config {}: optim_wrapper.optimizer: AdamW has no option weight_decy; did you mean weight_decay?'),
    Mistake('train.py {} --cfg-options optim_wrapper.acumulative_counts=2', 'config {}: optim_wrapper: OptimWrapper has no option acumulative_counts; did you mean accumulative_counts?'),
    Mistake('train.py {} --cfg-options train_cfg.max_epoch=3', 'config {}: train_cfg: EpochBasedTrainLoop has no option max_epoch; did you mean max_epochs?'),
    Mistake('train.py toy.py --cfg-options train_cfg.by_epoch=False', 'config toy.py: train_cfg: IterBasedTrainLoop has no option max_epochs; did you mean max_iters?'),
    Mistake('train.py {} --cfg-options train_cfg.type=EpochBasedTrainLop', 'config {}: train_cfg: EpochBasedTrainLop is not a registered loop; did you mean EpochBasedTrainLoop?'),
    Mistake('train.py {} --cfg-options param_scheduler.1.T_maximum=3', 'config {}: param_scheduler.1: CosineAnnealingLR has no option T_maximum; did you mean T_max?'),
    Mistake('train.py {} --cfg-options train_dataloader.batchsize=2', 'config {}: train_dataloader: DataLoader has no option batchsize; did you mean batch_size?'),
    Mistake('train.py {} --cfg-options train_dataloader.dataset.ann_fle=x.pkl', 'config {}: train_dataloader.dataset: CmtDataset has no option ann_fle; did you mean ann_file?'),
    Mistake('train.py {} --cfg-options train_pipeline.1.failures.0.type=LidarDrp', 'config {}: train_dataloader.dataset.pipeline.1.failures.0: LidarDrp is not a registered transform; did you mean LidarDrop?'),
    Mistake('train.py {} --cfg-options train_pipeline.1.failures.0.severty=1', 'config {}: train_dataloader.dataset.pipeline.1.failures.0: LidarDrop has no option severty; did you mean severity?'),
    Mistake('train.py {} --cfg-options train_pipeline.1.probb=0.5', 'config {}: train_dataloader.dataset.pipeline.1: RandomFailure has no option probb; did you mean prob?'),
    Mistake('train.py {} --cfg-options default_hooks.checkpoint.intervall=5', 'config {}: default_hooks.checkpoint: CheckpointHook has no option intervall; did you mean interval?'),
    Mistake('train.py {} --cfg-options randomness.sead=5', 'config {}: randomness has no option sead; did you mean seed?'),
    Mistake('train.py toy.py --cfg-options model.type=Zzz', 'Zzz is not a registered model; the module of a class of your own must be in custom_imports'),
    # Settings that clash.
    Mistake('train.py toy.py --cfg-options train_cfg.val_interval=3', 'config toy.py: train_cfg.val_interval=3 does not switch validation off, for the end of max_epochs=2 is always validated: set val_begin=3 to switch it off, or val_interval=2'),
    Mistake('train.py {} --cfg-options default_hooks.checkpoint.save_best=mAPP', 'config {}: default_hooks.checkpoint.save_best: no score mAPP; did you mean mAP?'),
    Mistake('train.py toy.py --cfg-options default_hooks.checkpoint.save_best=cuont default_hooks.checkpoint.rule=greater', 'default_hooks.checkpoint.save_best: no score cuont; did you mean count?'),
    Mistake('train.py {} --cfg-options val_evaluator.modality.use_camera=False', 'config {}: val_evaluator.modality declares use_lidar in the result files, but the data has use_camera, use_lidar: give it the modality of the dataset'),
    # Checkpoints.
    Mistake('test.py toy.py none.pth', 'checkpoint none.pth does not exist (in HERE)'),
    Mistake('test.py toy.py half.pth', 'checkpoint half.pth (0.0 MB) is incomplete or no checkpoint: PytorchStreamReader failed reading zip archive: failed finding central directory; copy or download it again, or use an earlier one', truncated),
    Mistake('test.py toy.py empty.pth', 'checkpoint empty.pth (0.0 MB) is incomplete or no checkpoint: unexpected end; copy or download it again, or use an earlier one', {'empty.pth': ''}),
    Mistake('test.py toy.py code.pth', 'checkpoint code.pth cannot be read as plain weights (Unsupported global: GLOBAL print was not an allowed global by default); if you trust it, load it with weights_only=False in a program of your own and save its state dict', with_code),
    Mistake('test.py toy.py some.pth', 'checkpoint some.pth does not fit the model: missing: line.weight; use the config that it was trained with, or leave these weights at their initial values by --allow-mismatch', weights(bias=[1])),
    Mistake('train.py toy.py --cfg-options load_from=some.pth', 'checkpoint some.pth does not fit the model: other shapes: line.weight is [3, 1] and must be [1, 1]; use the config that it was trained with, or leave these weights at their initial values by --allow-mismatch', weights(weight=[3, 1], bias=[1])),
    Mistake('train.py toy.py --cfg-options load_from=some.pth', 'checkpoint some.pth does not fit the model: missing: line.weight, line.bias; unexpected: line.scale; use the config that it was trained with, or leave these weights at their initial values by --allow-mismatch', weights(scale=[1])),
    # Going on, and work directories.
    Mistake('train.py toy.py --resume', '--resume: work_dirs/toy has no checkpoint to resume from; train without --resume, or name the checkpoint after it'),
    Mistake('train.py toy.py --resume some.pth', '--resume: checkpoint some.pth has weights without an optimizer; start a new run from it with --cfg-options load_from=some.pth', weights(bias=[1])),
    Mistake('train.py toy.py --resume --cfg-options max_epochs=4', f'{SCHEDULE} max_epochs is 4 and was 2; set it back, {NEW_RUN}', trained),
    Mistake('train.py toy.py --resume --cfg-options batch_size=1', f'{SCHEDULE} batch_size x processes is 1 and was 2; set it back, {NEW_RUN}', trained),
    Mistake('train.py toy.py --resume --cfg-options optim_wrapper.accumulative_counts=2', f'{SCHEDULE} accumulative_counts is 2 and was 1; set it back, {NEW_RUN}', trained),
    Mistake('train.py toy.py', 'work_dirs/toy has checkpoints of another run (epoch_2.pth): continue it by --resume, choose another --work-dir, or replace them by --overwrite', trained),
    Mistake('train.py toy.py --work-dir toy.py/run', 'work directory toy.py/run cannot be written: Not a directory; choose another one by --work-dir'),
    Mistake('train.py toy.py --overwrite', 'the disk is full (', full_disk),
    Mistake('train.py toy.py --cfg-options custom_hooks.1.type=PressCtrlC', 'interrupted; to go on from the last checkpoint, add --resume', status=130),
    Mistake('train.py toy.py --cfg-options lr=1e30', 'the loss is not finite in epoch 1, iteration 2 loss: inf loss_line: inf samples: unnamed, unnamed kept in HERE/work_dirs/toy/', {}),
    # Data.
    Mistake('train.py data.py', 'train_dataloader reads data/infos.pkl, which does not exist in HERE; to make it: see "data" in the README'),
    Mistake('train.py data.py', 'info file data/infos.pkl (0 bytes) is incomplete; make it again (tools/create_data.py), or copy it again', {'data/infos.pkl': ''}),
    Mistake('train.py data.py', 'info file data/infos.pkl has no samples (data_list); make it again (tools/create_data.py), or copy it again', pickled(dict(data_list=[]))),
    Mistake('train.py data.py', 'data/infos.pkl has the format of MMDetection3D before 1.1; to convert it: python tools/create_data.py data/ --update-infos data/infos.pkl', pickled(dict(infos=[], metadata={}))),
    Mistake('train.py data.py', 'info file data/infos.pkl, sample 0: images.CAM_FRONT has no cam2img; did you mean cam2image?', pickled(dict(data_list=[dict(images=dict(CAM_FRONT=IMAGE))]))),
    Mistake('train.py data.py', 'metainfo.version=v1.0-mini: a score needs the tables in data/v1.0-mini, which do not exist; no version is there; set the version, for example by --cfg-options version=...', pickled(dict(data_list=[dict(images={})]))),
    # Other tools.
    Mistake('cache_features.py toy.py', 'config toy.py has no feature_cache; to add it: --cfg-options feature_cache.directory=work_dirs/features'),
    Mistake('convert_checkpoint.py none.pth toy.py --out x.pth', 'source none.pth does not exist (in HERE)'),
    Mistake('create_data.py none', 'data root HERE/none does not exist; make one: python tools/make_synthetic_nuscenes.py --out HERE/none'),
    Mistake('make_synthetic_nuscenes.py --keyframes 1', 'keyframes must be 2 to 100, got 1'),
    Mistake('publish_checkpoint.py some.pth x.pth --note mAP', '--note mAP: give KEY=VALUE', weights(bias=[1])),
    Mistake('verify_freeze.py toy.py --epoch-length 0', '--epoch-length is 0; it must be 1 or greater'),
    # Values of options.
    Mistake('train.py toy.py --seed -1', 'argument --seed: -1 must be 0 to 4294967295 (all options: --help)'),
    Mistake('train.py toy.py --seed five', "argument --seed: invalid int value: 'five' (all options: --help)"),
    Mistake('infer.py cmt_tiny_synthetic data --device gpu', 'argument --device: gpu is no device of this machine ('),
    Mistake('benchmark.py voxels --device gpu', 'argument --device: gpu is no device of this machine (', prog='benchmark.py voxels'),
    Mistake('benchmark.py voxels --points 0', 'argument --points: 0 must be 1 or more (all options: --help)', prog='benchmark.py voxels'),
    Mistake('doctor.py --device gpu', '--device gpu is no device of this machine ('),
    Mistake('infer.py cmt_tiny_synthetic data --score-threshold 7', 'argument --score-threshold: 7 must be 0 to 1 (all options: --help)'),
    Mistake('infer.py cmt_tiny_synthetic data --score-threshold nan', 'argument --score-threshold: nan must be 0 to 1 (all options: --help)'),
    Mistake('infer.py cmt_tiny_synthetic data --failure fog_9', '--failure fog_9: no condition \'fog_9\'; it must be one of lidar_drop, beam_reduction, points_drop, limited_fov, object_failure, view_drop, camera_loss, occlusion, darkness, motion_blur, fog, misalignment, stale_frame, stale_sensors, ghost_points, frozen_camera, knocked_camera, with _1, _2, ... for one severity; did you mean fog_3?'),
    Mistake('infer.py cmt_tiny_synthetic data --out toy.py', 'toy.py: File exists; a file and a folder cannot have one name'),
    Mistake('infer.py cmt_tiny data', 'model cmt_tiny is neither a config file nor a shipped model; did you mean cmt_tiny_streets?'),
    Mistake('visualize.py frame data --width 0', 'argument --width: 0 must be 200 to 20000 (all options: --help)', prog='visualize.py frame'),
    Mistake('visualize.py frame data --out frame.gif', 'argument --out: frame.gif is no name of an image file; its end must be one of .png, .jpg, .jpeg, .pdf, .svg (all options: --help)', prog='visualize.py frame'),
    Mistake('visualize.py browse toy.py --draws 0', 'argument --draws: 0 must be 1 or more (all options: --help)', prog='visualize.py browse'),
    Mistake('create_data.py data --update-infos a.pkl --with-database', '--with-database reads new info files: give it after --update-infos'),
    Mistake('create_data.py data --infos a.pkl --with-ego-future', '--with-ego-future reads the tables: leave out --infos and --update-infos, and give --version'),
    Mistake('create_data.py data --max-sweeps -1', 'argument --max-sweeps: -1 must be 0 or more (all options: --help)'),
    Mistake('report.py none', 'none has no run_info.json, and no folder with one; give the work dir of tools/train.py or tools/test.py, or the folder of one run in it'),
]  # fmt: skip


def call(tool: str, *arguments: str) -> int:
    """Run a tool in this process; its exit status."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, 'argv', [tool, *arguments])
        try:
            runpy.run_path(str(REPO_ROOT / 'tools' / tool), run_name='__main__')
        except SystemExit as end:
            return end.code or 0
    return 0


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    for name in ('RANK', 'WORLD_SIZE', 'CMT_AQR_CONFIGS', 'SLURM_PROCID'):
        monkeypatch.delenv(name, raising=False)
    # yapf takes longer to format a config than these runs.
    monkeypatch.setattr(Config, 'pretty_text', property(lambda cfg: f'{cfg.to_dict()}'))
    return tmp_path


def prepare(before: dict[str, str] | Callable[[], None]) -> None:
    """Write the files of a mistake to the current folder."""
    Path('toy.py').write_text(TOY)
    Path('data.py').write_text(DATA)
    if callable(before):
        before()
        return
    for name, text in before.items():
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_text(text)


def shown(mistake: Mistake, capsys) -> tuple[int, str]:
    """Status and last line of a mistake in the current folder, without a traceback before it."""
    prepare(mistake.before)
    capsys.readouterr()
    status = call(*mistake.command.format(CMT).split())
    errors = capsys.readouterr().err
    assert 'Traceback' not in errors, errors
    return status, errors.splitlines()[-1].replace(str(Path.cwd()), 'HERE')


@pytest.mark.slow
def test_every_mistake_ends_with_its_line(folder, capsys, monkeypatch):
    """All in one process; below a minute on an idle machine."""
    found, expected = {}, {}
    for number, mistake in enumerate(TABLE):
        (folder / str(number)).mkdir()
        monkeypatch.chdir(folder / str(number))
        status, line = shown(mistake, capsys)
        tool = mistake.prog or mistake.command.split()[0]
        wanted = f'{tool}: {mistake.line.replace("{}", str(CMT))}'
        if wanted.endswith(('(', '/')):
            line = line[: len(wanted)]
        found[number] = (mistake.command, status, line)
        expected[number] = (mistake.command, mistake.status, wanted)
    assert found == expected


def test_the_table_is_long_and_the_questions_have_an_answer_for_each_row():
    """A heading is the line as a user would search for it, with `…` for names and values."""
    assert len(TABLE) >= 50
    page = (REPO_ROOT / 'docs' / 'faq.md').read_text()
    titles = re.findall(r'^### `(.+)`$', page, flags=re.MULTILINE)
    patterns = ['.*'.join(map(re.escape, title.split('…'))) for title in titles]
    lines = [mistake.line for mistake in TABLE]
    assert [line for line in lines if not any(re.search(p, line) for p in patterns)] == []


def test_a_traceback_is_shown_on_request_and_the_log_ends_with_the_cause(
    folder, capsys, monkeypatch
):
    monkeypatch.chdir(folder)
    Path('toy.py').write_text(TOY)
    assert call('train.py', 'toy.py', '--traceback', '--cfg-options', 'lr=1e30') == 2
    errors = capsys.readouterr().err
    assert 'Traceback (most recent call last)' in errors
    (log,) = folder.glob('work_dirs/toy/*/*.log')
    last = log.read_text().splitlines()[-1]
    assert last.endswith(errors.splitlines()[-1])
    assert 'the loss is not finite in epoch 1, iteration 2' in last


def test_no_validation_where_it_begins_beyond_the_end(folder, monkeypatch):
    monkeypatch.chdir(folder)
    Path('toy.py').write_text(TOY)
    assert call('train.py', 'toy.py', '--cfg-options', 'train_cfg.val_begin=3') == 0
    (info,) = folder.glob('work_dirs/toy/*/run_info.json')
    assert json.loads(info.read_text())['scores'] == []

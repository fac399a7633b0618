"""tools/benchmark.py from the command line."""

import json
import subprocess
import sys

import pytest
from torch_alone import run_with_torch_alone


def benchmark(repo_root, *arguments):
    command = [sys.executable, repo_root / 'tools/benchmark.py', *arguments]
    return subprocess.run(
        [str(part) for part in command], cwd=repo_root, capture_output=True, text=True
    )


@pytest.mark.slow
def test_step_prints_tables_and_writes_json(repo_root, tmp_path):
    """All trained, frozen, frozen with cached features, and with a router."""
    out = tmp_path / 'new' / 'step.json'
    frozen = 'configs/cmt/cmt_tiny_synthetic_finetune.py'
    answer = benchmark(
        repo_root,
        *('step', 'configs/cmt/cmt_tiny_synthetic.py', '--against', frozen),
        *('--against', frozen, 'cached'),
        *('--against', 'configs/cmt_aqr/cmt_aqr_tiny_synthetic.py'),
        *('--synthetic', '--device', 'cpu', '--threads', 1, '--rounds', 1, '--warmup', 1),
        *('--json', out),
    )
    assert answer.returncode == 0, answer.stderr[-3000:]
    assert 'Device cpu; ' in answer.stdout
    result = json.loads(out.read_text())
    assert result['arguments']['benchmark'] == 'step'
    assert result['machine']['threads'] == 1
    assert all(len(runs) == 1 for runs in result['runs'].values())
    assert [
        line for line in answer.stdout.splitlines() if line.startswith('| cmt_tiny_synthetic |')
    ]
    sides = list(result['sides'].values())
    assert len(sides) == 4
    trained, frozen, cached, routed = (side['trainable'] for side in sides)
    assert frozen == cached < routed < trained
    assert all(side['peak_memory'] > 0 and side['at_most'] >= 1 for side in sides)


@pytest.mark.slow
@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['nothing'], "invalid choice: 'nothing'"),
        (['voxels', '--rounds', '0'], '--rounds must be 1 or more, got 0'),
        (['step', 'configs/none.py'], 'config configs/none.py does not exist'),
    ],
)
def test_what_cannot_run_is_told_in_a_line(repo_root, arguments, message):
    answer = benchmark(repo_root, *arguments)
    assert answer.returncode == 2
    assert message in answer.stderr.splitlines()[-1]


@pytest.mark.slow
def test_attention_is_measured_with_torch_alone(repo_root, tmp_path):
    """Also in the processes that it starts."""
    code = """
import runpy, sys
from benchmarks import attention
from projects.cmt_aqr.doctor.decoder_inputs import Size
if __name__ == '__main__':
    attention.SIZES['r50'] = Size(bev=(12, 10), image=(4, 6), camera_window=3)
    attention.SIDES = dict(list(attention.SIDES.items())[:2])
    sys.argv[1:] = ['attention', '--sizes', 'r50', '--dtype', 'bfloat16', '--device', 'cpu']
    sys.argv += ['--dense', '--threads', '1', '--rounds', '1', '--warmup', '0']
    sys.path.insert(0, 'tools')
    runpy.run_path('tools/benchmark.py', run_name='__main__')
"""
    (tmp_path / 'run.py').write_text(code)
    answer = run_with_torch_alone([tmp_path / 'run.py'], folder=tmp_path, cwd=repo_root)
    assert answer.returncode == 0, answer.stderr[-3000:]
    assert '900 queries, bfloat16.' in answer.stdout
    assert [line for line in answer.stdout.splitlines() if line.startswith('| bias: dense | ')]

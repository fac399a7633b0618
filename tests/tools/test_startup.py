"""How tools start: they find the checkout, and name the remedy where the stack is missing."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    ('tool', 'package'),
    [('train.py', 'mmengine'), ('create_data.py', 'mmengine'), ('doctor.py', 'torch')],
)
def test_a_python_without_the_stack_is_told_in_one_line(repo_root, tmp_path, tool, package):
    command = [sys.executable, '-S', str(repo_root / 'tools' / tool)]  # -S: no installed packages
    answer = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert answer.returncode == 2
    assert answer.stderr == (
        f'{command[2]}: {package} is not installed for {sys.executable}; '
        'run `source .venv/bin/activate`\n'
    )


def test_every_tool_starts_in_the_same_way(repo_root):
    """All but those that need the standard library alone."""
    tools = {path.name: path.read_text() for path in (repo_root / 'tools').glob('*.py')}
    others = {name for name, source in tools.items() if '\n_startup.prepare(' not in source}
    assert others == {'_startup.py', 'demo.py', 'setup_env.py'}

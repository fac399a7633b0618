"""Result files are replaced whole or not at all, wherever in the project they are written."""

import ast
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from projects.cmt_aqr.files import dump_json, replacing, write_text

REPO_ROOT = Path(__file__).resolve().parents[1]
EXEMPT = {
    # It makes the environment in which the package can be imported.
    'tools/setup_env.py',
    # It renames files itself, from names that a resumed run does not take for finished ones.
    'projects/cmt_aqr/data_preparation/object_database.py',
    # Its two processes exchange files in a temporary folder.
    'projects/cmt_aqr/doctor/processes.py',
}
SOURCES = [
    path
    for folder in ('benchmarks', 'projects', 'tools')
    for path in sorted((REPO_ROOT / folder).rglob('*.py'))
    if str(path.relative_to(REPO_ROOT)) not in EXEMPT
]
# Images and clouds of a database are written into a folder that appears as a whole.
FUNCTIONS = {'dump', 'save_checkpoint', 'save_file'}
METHODS = FUNCTIONS | {'savefig', 'savez', 'savez_compressed', 'write_bytes', 'write_text'}
OF_MODULES = {('np', 'save'), ('torch', 'save')}


@pytest.fixture
def file(tmp_path) -> Path:
    path = tmp_path / 'report.json'
    path.write_text('{"old": 1}')
    return path


@pytest.mark.parametrize('error', [OSError('disk full'), KeyboardInterrupt()])
def test_a_write_that_ends_in_the_middle_leaves_the_old_file(file, error):
    def write() -> None:
        with replacing(file) as temporary:
            temporary.write_text('{"new"')
            raise error

    with pytest.raises(type(error)):
        write()
    assert json.loads(file.read_text()) == {'old': 1}
    assert [*file.parent.iterdir()] == [file]


def test_data_that_are_no_json_leave_the_old_file(file):
    with pytest.raises(TypeError, match='not JSON serializable'):
        dump_json(file, dict(a=1, b=object()))
    assert json.loads(file.read_text()) == {'old': 1}


def test_the_new_file_takes_the_place_of_the_old_one(file):
    dump_json(file, dict(new=2))
    assert file.read_text() == '{\n  "new": 2\n}\n'
    write_text(file.with_name('table.md'), 'text')
    assert sorted(path.name for path in file.parent.iterdir()) == ['report.json', 'table.md']


def test_a_link_stays_a_link(file):
    link = file.with_name('latest.json')
    link.symlink_to(file.name)
    dump_json(link, dict(new=2))
    assert link.is_symlink()
    assert json.loads(file.read_text()) == {'new': 2}


def test_writers_that_look_at_the_suffix_see_it(tmp_path):
    with replacing(tmp_path / 'picture.png') as temporary:
        assert temporary.suffix == '.png'
        assert temporary.parent == tmp_path
        temporary.touch()


# Who writes without it.


def is_writer(call: ast.Call) -> bool:
    """Whether a call writes the file that it is given, all at once."""
    function = call.func
    if isinstance(function, ast.Name):
        return function.id in FUNCTIONS or (function.id == 'open' and opens_anew(call, 1))
    if not isinstance(function, ast.Attribute):
        return False
    owner = function.value.id if isinstance(function.value, ast.Name) else None
    if function.attr == 'open':
        return opens_anew(call, 0)
    return function.attr in METHODS or (owner, function.attr) in OF_MODULES


def opens_anew(call: ast.Call, position: int) -> bool:
    """Whether ``open`` empties the file; appending to a log is something else."""
    modes = [*call.args[position : position + 1], *(k.value for k in call.keywords)]
    return any(isinstance(mode, ast.Constant) and 'w' in str(mode.value) for mode in modes)


def direct_writes(node: ast.AST) -> Iterator[int]:
    """Lines of the calls that write a file outside of ``with replacing(...)``."""
    if isinstance(node, ast.With):
        managers = [item.context_expr for item in node.items]
        if any(isinstance(m, ast.Call) and ast.unparse(m.func) == 'replacing' for m in managers):
            return
    if isinstance(node, ast.Call) and is_writer(node):
        yield node.lineno
    for child in ast.iter_child_nodes(node):
        yield from direct_writes(child)


@pytest.mark.parametrize(
    'line',
    [
        "path.write_text('a')", "json.dump(a, file)", "torch.save(a, path)", "dump(a, path)",
        "open(path, 'w')", "path.open('wb')", "open(path, mode='w')", 'figure.savefig(path)',
        'np.savez_compressed(path, a=a)', 'save_file(a, path)',
    ],
)  # fmt: skip
def test_a_direct_write_is_found(line):
    assert [*direct_writes(ast.parse(f'if a:\n    {line}'))] == [2]
    assert [*direct_writes(ast.parse(f'with replacing(path) as path:\n    {line}'))] == []


@pytest.mark.parametrize('line', ["open(path, 'a')", 'open(path)', "path.open('rb')", 'a.save(b)'])
def test_what_replaces_no_file_is_left_alone(line):
    assert [*direct_writes(ast.parse(line))] == []


def test_every_result_is_written_through_a_temporary_file():
    found = [
        f'{path.relative_to(REPO_ROOT)}:{line}'
        for path in SOURCES
        for line in direct_writes(ast.parse(path.read_text()))
    ]
    assert found == []

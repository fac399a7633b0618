"""A work directory belongs to one training at a time."""

import errno
import fcntl

import pytest

from projects.cmt_aqr.cli.work_dir import claim_work_dir, lock_work_dir
from projects.cmt_aqr.usage_error import UsageError


def claim(folder, *, resume=False, overwrite=False):
    return claim_work_dir(str(folder), resume=resume, overwrite=overwrite)


def test_two_trainings_at_once_are_refused(tmp_path):
    with (
        claim(tmp_path / 'new'),
        pytest.raises(UsageError, match=r'another training runs in .*new; choose another'),
        claim(tmp_path / 'new', resume=True, overwrite=True),
    ):
        pass
    with claim(tmp_path / 'new'):  # when the first one has ended
        pass


@pytest.mark.parametrize('variable', ['RANK', 'SLURM_PROCID', 'OMPI_COMM_WORLD_RANK'])
def test_other_processes_of_a_training_join_the_main_one(tmp_path, monkeypatch, variable):
    with claim(tmp_path):
        monkeypatch.setenv(variable, '1')
        with claim(tmp_path):
            pass


def test_a_file_system_without_locks_is_no_obstacle(tmp_path, monkeypatch):
    def flock(file, operation):
        raise OSError(errno.ENOSYS, 'Function not implemented')

    monkeypatch.setattr(fcntl, 'flock', flock)
    with claim(tmp_path):
        pass


def test_a_test_and_a_training_may_share_a_folder(tmp_path):
    with (
        claim(tmp_path),
        lock_work_dir(str(tmp_path), task='test'),
        pytest.raises(UsageError, match='another test runs in'),
        lock_work_dir(str(tmp_path), task='test'),
    ):
        pass


def test_checkpoints_of_another_run_are_kept(tmp_path):
    (tmp_path / 'epoch_3.pth').touch()
    with (
        pytest.raises(UsageError, match=r'has checkpoints of another run \(epoch_3\.pth\)'),
        claim(tmp_path),
    ):
        pass
    for options in (dict(resume=True), dict(overwrite=True)):
        with claim(tmp_path, **options):
            pass

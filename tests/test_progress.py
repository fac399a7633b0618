"""Progress where there is no terminal."""

from projects.cmt_aqr.progress import Progress


def test_without_a_terminal_a_slow_tenth_has_a_line(monkeypatch, capsys):
    now = iter(range(0, 1000, 20))
    monkeypatch.setattr('time.monotonic', lambda: next(now))
    progress = Progress('training', 20)
    for _ in range(20):
        progress.move('loss 1.000')
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == 'training: 4 of 20, loss 1.000, 0:04:00 left'
    assert len(lines) == 5


def test_steps_may_come_in_groups(monkeypatch, capsys):
    now = iter(range(0, 1000, 40))
    monkeypatch.setattr('time.monotonic', lambda: next(now))
    progress = Progress('samples', 100)
    for steps in (5, 3, 42, 50):
        progress.move(steps=steps)
    assert capsys.readouterr().err.splitlines() == [
        'samples: 50 of 100, 0:01:20 left',
        'samples: 100 of 100, 0:00:00 left',
    ]

import pytest
from detection_boxes import random_scene

from projects.cmt_aqr.evaluation.predictions import Predictions


def test_boxes_come_back_from_a_file(tmp_path):
    _, boxes = random_scene(4)
    Predictions.of(boxes).save(tmp_path / 'boxes.npz')
    read = Predictions.load(tmp_path / 'boxes.npz').boxes()
    assert read.sample_tokens == boxes.sample_tokens
    assert read['frame003'] == []
    for before, after in zip(boxes.all, read.all, strict=True):
        assert after.translation == before.translation
        assert after.detection_name == before.detection_name
        assert after.attribute_name == before.attribute_name
        for name in ('size', 'rotation', 'velocity', 'detection_score'):
            assert getattr(after, name) == pytest.approx(getattr(before, name), rel=1e-6)


def test_frames_without_any_box_are_kept(tmp_path):
    _, boxes = random_scene(2)
    for token in boxes.sample_tokens:
        boxes.boxes[token] = []
    predictions = Predictions.of(boxes)
    assert predictions.translation.shape == (0, 3)
    assert predictions.boxes().sample_tokens == ['frame000', 'frame001']

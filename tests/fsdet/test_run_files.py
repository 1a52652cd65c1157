import pytest
from trained_runs import steps

from fsdet.errors import FsdetError
from fsdet.run_files import StepHistory
from fsdet.train import train


def test_a_run_leaves_the_files_of_an_earlier_one_whole(small_config):
    first = train(small_config(epochs=1, n_episodes=4))
    before = (first.run_dir / "steps.jsonl").read_text()
    second = train(small_config(epochs=1, n_episodes=2))
    assert (first.run_dir / "earlier-1" / "steps.jsonl").read_text() == before
    assert len(steps(second)) == 1
    assert (second.run_dir / "health.json").exists()


def test_a_mistake_found_late_leaves_the_files_of_an_earlier_run(small_config, tmp_path):
    first = train(small_config(epochs=1))
    before = (first.run_dir / "config.yaml").read_text()
    with pytest.raises(FsdetError):
        train(small_config(support_encoder="resnet10t", support_size=48, cache_dir=tmp_path / "x"))
    assert (first.run_dir / "config.yaml").read_text() == before


def test_steps_are_not_kept_where_nobody_listens(small_config, monkeypatch):
    kept: list[int] = []
    append = StepHistory.append

    def counting(self, values):
        append(self, values)
        kept.append(len(self._rows))

    monkeypatch.setattr(StepHistory, "append", counting)
    config = small_config(epochs=4)
    train(config)
    assert len(kept) == config.total_steps
    assert max(kept) == config.steps_per_epoch

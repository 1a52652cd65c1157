import io
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fsdet.config import MODULES, GradientConfig
from fsdet.health.stability import CEILING, LOSS_WINDOW, POSITIVES_PATIENCE, StabilityMonitor
from fsdet.report import Explosion

CONFIG = GradientConfig()
K, RATIO = CONFIG.explosion_patience, CONFIG.explosion_ratio
BAD = [math.nan, math.inf]


class Feed:
    """A monitor and the step counter that a trainer would keep."""

    def __init__(self, reference: float | None = 10.0, **settings: float) -> None:
        self.monitor = StabilityMonitor(GradientConfig(**settings), MODULES, reference)
        self.step = 0

    def __call__(
        self,
        loss: float = 5.0,
        norm: float = 10.0,
        grown: str = "",
        positives: float = 40.0,
        parameters_finite: bool = True,
    ) -> Explosion | None:
        """One step; all modules have half the norm, but `grown` all of it."""
        self.step += 1
        norms = {name: norm if name == grown else 5.0 for name in MODULES}
        return self.monitor.update(self.step, loss, norm, norms, positives, parameters_finite)

    def healthy(self, steps: int) -> None:
        assert not any(self() for _ in range(steps))


def check(verdict: Explosion | None, reason: str, step: int, module: str) -> None:
    assert verdict is not None
    assert (verdict.reason, verdict.step, verdict.module) == (reason, step, module)


@pytest.mark.parametrize("module", MODULES)
@pytest.mark.parametrize("norm", BAD)
def test_a_norm_that_stays_not_finite_explodes_at_its_patience(norm, module):
    feed = Feed()
    feed.healthy(5)
    assert [feed(norm=norm, grown=module) for _ in range(K - 1)] == [None] * (K - 1)
    check(feed(norm=norm, grown=module), "non_finite", 5 + K, module)


@pytest.mark.parametrize("loss", [*BAD, -math.inf])
def test_a_loss_that_stays_not_finite_explodes_at_its_patience(loss):
    feed = Feed()
    assert [feed(loss=loss) for _ in range(K - 1)] == [None] * (K - 1)
    check(feed(loss=loss), "non_finite", K, MODULES[0])


def test_loss_and_norm_count_together_as_not_finite():
    feed = Feed(explosion_patience=2)
    assert feed(loss=math.nan) is None
    check(feed(norm=math.inf, grown="scs_fusion"), "non_finite", 2, "scs_fusion")


def test_a_scaler_that_recovers_within_the_patience_is_left_alone():
    feed = Feed()
    for _ in range(20):
        assert [feed(norm=math.inf) for _ in range(K - 1)] == [None] * (K - 1)
        assert feed() is None


def test_weights_that_are_not_finite_end_the_run_at_once():
    feed = Feed()
    feed.healthy(3)
    verdict = feed(norm=20.0, grown="backbone", parameters_finite=False)
    check(verdict, "non_finite", 4, "backbone")
    assert "weight" in verdict.detail


@pytest.mark.parametrize("norm", [1.01e4, 4.97e6, math.inf])
def test_ceiling(norm):
    feed = Feed(reference=None, explosion_warmup=1000)
    feed.healthy(5)
    feed(norm=2e4)
    feed(norm=norm, grown="detection_head")
    check(feed(norm=2e4, grown="detection_head"), "norm_ceiling", 8, "detection_head")


def test_at_the_ceiling_is_not_above_it():
    feed = Feed(reference=None)
    assert not any(feed(norm=CEILING) for _ in range(50))


@pytest.mark.parametrize(
    ("settings", "reference", "ceiling"),
    [
        ({}, 10.0, CEILING),
        ({}, 4000.0, 4e4),  # large images and loss weights: thousands are healthy
        ({"explosion_norm": 50.0}, 4000.0, 50.0),
        ({}, None, CEILING),
    ],
)
def test_the_ceiling_is_the_one_set_else_never_near_the_reference(settings, reference, ceiling):
    feed = Feed(reference, **settings)
    assert feed.monitor.ceiling == ceiling
    assert not any(feed(norm=ceiling) for _ in range(2))
    assert [feed(norm=1.01 * ceiling) for _ in range(K)][-1] is not None


@pytest.mark.parametrize(
    ("settings", "reference", "expected"),
    [({}, 12.0, 12.0), ({"explosion_reference": 7.0}, 12.0, 7.0)],
)
def test_ratio_to_the_config_then_to_the_norm_that_was_measured(settings, reference, expected):
    feed = Feed(reference, **settings)
    feed.healthy(CONFIG.explosion_warmup)
    assert feed.monitor.reference == expected
    assert feed.monitor.limit == RATIO * expected
    assert not any(feed(norm=RATIO * expected) for _ in range(2 * K))
    above = [feed(norm=1.01 * RATIO * expected, grown="scs_fusion") for _ in range(K)]
    assert above[:-1] == [None] * (K - 1)
    check(above[-1], "norm_ratio", feed.step, "scs_fusion")


def test_a_norm_without_reference_has_only_the_ceiling():
    feed = Feed(reference=None)
    feed.healthy(100)
    assert feed.monitor.reference is None
    assert feed.monitor.limit == CEILING
    assert not any(feed(norm=5e3) for _ in range(50))


def spikes(gap: int) -> list[Explosion | None]:
    """Verdicts of a run with a spike at every `gap`-th step."""
    feed = Feed()
    return [feed(norm=100.0 if step % gap == 0 else 10.0) for step in range(1, 61)]


def test_spikes_with_ordinary_steps_between_them_explode():
    verdicts = spikes(4)
    assert verdicts[:11] == [None] * 11
    check(verdicts[11], "norm_ratio", 12, MODULES[0])
    assert f"{K} of the last {CONFIG.explosion_window} steps" in verdicts[11].detail


def test_spikes_further_apart_than_the_window_allows_are_healthy():
    assert not any(spikes(5))


def test_an_ordinary_step_behind_spikes_is_no_verdict_of_its_own():
    feed = Feed()
    assert [feed(norm=100.0) for _ in range(K)][-1] is not None
    assert feed() is None


def test_exploding_norms_never_become_the_reference():
    feed = Feed(explosion_patience=200, explosion_window=200)
    feed.healthy(50)
    verdicts = [feed(norm=150.0, grown="detection_head") for _ in range(200)]
    assert feed.monitor.reference == 10.0
    assert verdicts[:-1] == [None] * 199
    check(verdicts[-1], "norm_ratio", 250, "detection_head")


def test_the_module_that_grew_most_is_not_the_largest():
    feed = Feed()
    feed.healthy(5)
    for name, norm in (("backbone", 90.0), ("support_encoder", 0.1)):
        feed.monitor._module_norms[name].clear()
        feed.monitor._module_norms[name].append(norm)
    norms = {"backbone": 180.0, "support_encoder": 5.0, "scs_fusion": 40.0, "detection_head": 1.0}
    verdicts = [feed.monitor.update(6 + i, 5.0, 200.0, norms, 40) for i in range(K)]
    check(verdicts[-1], "norm_ratio", 5 + K, "support_encoder")


def test_divergence_of_the_loss_when_its_median_has_passed_the_limit_for_the_patience():
    feed = Feed()
    feed.healthy(30)
    verdicts = []
    while not any(verdicts):
        verdicts.append(feed(loss=16.0))
        assert feed.step < 100
    # the median of an even window is past three times the best when 11 of its 20 values are
    check(verdicts[-1], "loss_divergence", 30 + LOSS_WINDOW // 2 + 1 + K - 1, MODULES[0])


def test_a_loss_below_the_ratio_or_a_short_hump_does_not_diverge():
    feed = Feed()
    feed.healthy(30)
    assert not any(feed(loss=14.9) for _ in range(100))
    feed = Feed()
    feed.healthy(30)
    assert not any(feed(loss=1e6) for _ in range(LOSS_WINDOW // 2 - 1))
    feed.healthy(100)


def test_the_best_loss_is_the_lowest_median_not_the_lowest_loss():
    feed = Feed()
    feed.healthy(30)
    assert feed(loss=0.01) is None
    feed.healthy(100)


def test_no_divergence_before_the_end_of_the_warmup():
    feed = Feed(explosion_warmup=200)
    feed.healthy(30)
    assert not any(feed(loss=100.0) for _ in range(170))
    verdicts = [feed(loss=100.0) for _ in range(K)]
    check(verdicts[-1], "loss_divergence", 200 + K, MODULES[0])


@pytest.mark.parametrize("loss", [0.0, -0.5, 1e-7])
def test_collapse_of_the_loss(loss):
    feed = Feed()
    feed.healthy(30)
    assert [feed(loss=loss) for _ in range(K - 1)] == [None] * (K - 1)
    check(feed(loss=loss), "loss_collapse", 30 + K, MODULES[0])


def test_a_dead_gradient():
    feed = Feed()
    feed.healthy(5)
    assert [feed(norm=1e-7) for _ in range(K - 1)] == [None] * (K - 1)
    verdict = feed(norm=0.0)
    assert (verdict.reason, verdict.step) == ("silent_death", 5 + K)
    assert "gradient norm" in verdict.detail


@pytest.mark.parametrize("patience", [1, 3, 15])
def test_no_positives_are_forgiven_longer(patience):
    feed = Feed(explosion_patience=patience)
    need = max(patience, POSITIVES_PATIENCE)
    assert [feed(positives=0) for _ in range(need - 1)] == [None] * (need - 1)
    verdict = feed(positives=0)
    assert (verdict.reason, verdict.step) == ("silent_death", need)
    assert "positive" in verdict.detail


def test_batches_without_positives_do_not_shorten_the_patience_of_a_dead_gradient():
    feed = Feed()
    assert not any(feed(positives=0) for _ in range(5))
    assert feed(norm=0.0, positives=0) is None


SPIKES = [{"loss": x} for x in (*BAD, 1e9, -1.0)] + [{"norm": x} for x in (*BAD, 1e9, 0.0)]


@pytest.mark.parametrize("spike", [*SPIKES, {"positives": 0}])
def test_one_spike_is_silent_wherever_it_comes(spike):
    for before in (0, 1, 19, 20, 60):
        feed = Feed(reference=None)
        feed.healthy(before)
        assert feed(**spike) is None
        feed.healthy(60)


def test_a_healthy_step_starts_the_count_anew():
    feed = Feed()
    for _ in range(20):
        assert not any(feed(loss=math.nan) for _ in range(K - 1))
        feed.healthy(1)


@pytest.mark.parametrize("bad", [*BAD, 1e6, 0.0])
def test_only_healthy_values_enter_the_windows(bad):
    feed = Feed(reference=None)
    feed.healthy(30)
    for _ in range(K - 1):
        feed(norm=bad, loss=bad if not math.isfinite(bad) else 5.0, grown="backbone")
    state = feed.monitor.state_dict()
    assert {len(window) for window in state["module_norms"].values()} == {30}
    assert all(map(math.isfinite, state["losses"]))


def test_peak_limit_and_violation():
    feed = Feed(reference=10.0)
    assert feed.monitor.limit == RATIO * 10.0
    feed(norm=10.0)
    assert feed.monitor.violation == pytest.approx(-math.log10(RATIO))
    feed(norm=1e4)
    feed(norm=math.inf)
    assert feed.monitor.peak_norm == 1e4
    assert feed.monitor.violation == pytest.approx(math.log10(1e4 / (RATIO * 10.0)))


def test_the_limit_is_never_above_the_ceiling():
    assert Feed(reference=1e6, explosion_norm=1e5).monitor.limit == 1e5


def test_violation_is_at_least_one_after_an_explosion_without_numbers():
    feed = Feed()
    assert math.isfinite(feed.monitor.violation)
    for _ in range(K):
        feed(norm=math.nan)
    assert feed.monitor.violation == 1.0


def test_a_violation_is_found_even_where_every_norm_is_zero():
    feed = Feed(explosion_patience=1000, explosion_window=1000)
    for _ in range(50):
        feed(norm=0.0)
    assert math.isfinite(feed.monitor.violation)


@pytest.mark.parametrize("reference", [0.0, -1.0, math.nan, math.inf])
def test_a_reference_that_is_no_norm_is_refused(reference):
    with pytest.raises(ValueError, match="reference"):
        StabilityMonitor(CONFIG, MODULES, reference)


@given(st.integers(0, 1000), st.floats(0.001, 0.1), st.floats(0.05, 0.5))
@settings(max_examples=30)
def test_noisy_decaying_runs_are_silent(seed, decay, noise):
    generator = torch.Generator().manual_seed(seed)
    jitter = (noise * torch.randn(300, 2, generator=generator)).clamp(-1, 1).exp().tolist()
    feed = Feed(reference=40.0)
    for i, (a, b) in enumerate(jitter):
        fall = math.exp(-decay * i)
        assert feed(loss=(4 + 4 * fall) * a, norm=(10 + 30 * fall) * b) is None
    assert feed.monitor.violation < 0


value = st.one_of(
    st.sampled_from([math.nan, math.inf, -1.0, 0.0, 1e-8, 1e5]),
    st.floats(1, 20),
    st.floats(80, 300),
)
one_step = st.tuples(value, value, st.sampled_from(MODULES), st.sampled_from([0.0, 30.0]))


@given(
    steps=st.lists(one_step, max_size=80),
    cut=st.integers(0, 80),
    reference=st.sampled_from([None, 5.0]),
)
@settings(max_examples=60, deadline=None)
def test_a_resumed_monitor_gives_the_verdicts_of_an_uninterrupted_one(steps, cut, reference):
    thresholds = {"explosion_warmup": 5, "explosion_patience": 2}
    whole, first = Feed(reference, **thresholds), Feed(reference, **thresholds)
    expected = [whole(*step) for step in steps]
    found = [first(*step) for step in steps[:cut]]

    file = io.BytesIO()
    torch.save(first.monitor.state_dict(), file)
    file.seek(0)
    second = Feed(None, **thresholds)  # the trainer that resumes does not know the old reference
    second.healthy(3)  # whatever it saw is forgotten
    second.monitor.load_state_dict(torch.load(file, weights_only=True))
    second.step = first.step
    found += [second(*step) for step in steps[cut:]]

    assert found == expected
    assert second.monitor.violation == whole.monitor.violation
    assert second.monitor.reference == whole.monitor.reference
    assert second.monitor.state_dict() == whole.monitor.state_dict()


def test_a_reference_in_the_config_goes_before_the_stored_one():
    state = Feed(5.0).monitor.state_dict()
    resumed = Feed(None, explosion_reference=8.0).monitor
    resumed.load_state_dict(state)
    assert resumed.reference == 8.0

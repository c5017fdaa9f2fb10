"""Inputs that nobody would write, drawn by hypothesis: clips, lists, YAML text, whole configs."""

import string
from unittest.mock import Mock

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.trust_configs import LEFT_OUT, VALUES, all_keys, attempt, covering, make_lists, table
from tools.trust_report import config_lines, problems
from vidformers.config import load_config
from vidformers.data.clip_sampling import RULES, test_views, train_clip
from vidformers.data.datasets.kinetics import read_list

FAST = settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
test_views.__test__ = False

RATES = st.one_of(st.floats(0.001, 1e6), st.sampled_from([29.97, 30.0, 23.976, 1.0]))


# ---- clips


@FAST
@given(
    rule=st.sampled_from(RULES),
    length=st.one_of(st.integers(1, 40), st.integers(1, 10**6)),
    fps=RATES,
    target_fps=RATES,
    num_frames=st.integers(1, 64),
    sampling_rate=st.integers(1, 1000),
    num_views=st.integers(1, 30),
    use_offset=st.booleans(),
    seed=st.integers(0, 99),
)
@example("slowfast", 1, 1e6, 0.001, 64, 1000, 30, True, 0)
@example("slowfast", 10**6, 0.001, 1e6, 16, 4, 10, False, 0)
@example("segment", 3, 30.0, 30.0, 64, 1, 30, True, 0)
def test_clips_lie_in_the_video(
    rule, length, fps, target_fps, num_frames, sampling_rate, num_views, use_offset, seed
):
    clip = {"num_frames": num_frames, "sampling_rate": sampling_rate, "target_fps": target_fps}
    views = test_views(rule, length, fps, **clip, num_views=num_views, use_offset=use_offset)
    one = train_clip(rule, length, fps, **clip, generator=np.random.default_rng(seed))
    assert views.shape == (num_views, num_frames) and one.shape == (num_frames,)
    for indices in (views, one[None]):
        assert indices.dtype == np.int64
        assert indices.min() >= 0 and indices.max() < length
        steps = np.diff(indices, axis=1)
        if rule == "uniform":  # starts over where the video is shorter than the clip
            assert (steps[steps < 0] % length == sampling_rate % length).all()
        else:
            assert (steps >= 0).all()


@FAST
@given(
    length=st.integers(-3, 3),
    num_frames=st.integers(-2, 3),
    fps=st.sampled_from([0.0, -1.0, float("nan"), float("inf"), 30.0]),
    rule=st.sampled_from([*RULES, "other"]),
)
def test_lengths_and_rates_that_are_none_are_named(length, num_frames, fps, rule):
    try:
        views = test_views(
            rule,
            length,
            fps,
            num_frames=num_frames,
            sampling_rate=4,
            target_fps=30.0,
            num_views=2,
            use_offset=True,
        )
    except ValueError as error:
        assert len(str(error)) > 20
    else:
        assert views.min() >= 0 and views.max() < length


# ---- lists

TEXT = st.text(st.characters(codec="utf-8"), max_size=200)
ROWS = st.lists(
    st.tuples(
        st.text(string.ascii_letters + "/. -_,\t\"'é\u2028", min_size=1, max_size=30),
        st.one_of(
            st.integers(-2, 10**20).map(str), st.sampled_from(["", "x", "1.5", "+3", "٣", "1e3", "0x2"])
        ),
    ).map(" ".join),
    max_size=8,
).map("\n".join)


@FAST
@given(text=st.one_of(TEXT, ROWS), separator=st.sampled_from([" ", ",", "\t", ";"]))
def test_any_list_is_read_or_refused_by_line(tmp_path, text, separator):
    path = tmp_path / "list.csv"
    path.write_bytes(text.encode("utf-8"))
    try:
        records = read_list(str(path), separator=separator)
    except ValueError as error:
        assert str(path) in str(error)
    else:
        assert records and all(record.path and record.label >= 0 for record in records)


@FAST
@given(content=st.binary(max_size=200))
def test_any_bytes_as_a_list(tmp_path, content):
    path = tmp_path / "list.csv"
    path.write_bytes(content)
    try:
        read_list(str(path))
    except ValueError as error:
        assert str(path) in str(error)


# ---- YAML

YAML = st.recursive(
    st.sampled_from(
        ["1", "true", "x", "1e-4", "[1, 2]", "null", "~", "'a'", "2020-13-01", "!!python/name:os", "*a"]
    ),
    lambda inner: st.lists(
        st.tuples(st.sampled_from(["MODEL", "DATA", "NAME", "&a k", "?", "- ", "ARGS"]), inner), max_size=3
    ).map(lambda pairs: "".join(f"\n  {key}: {value}".replace("\n", "\n  ") for key, value in pairs)),
    max_leaves=6,
)


@FAST
@given(text=st.one_of(TEXT, YAML, st.text("{}[]:,-&*!|>%@`'\"# \n\tabAB10.", max_size=60)))
@example("MODEL: {NAME: [&a a, *a, {b: *a}]}")
@example("a: &a [*a]")
@example("DATA: &d {x: *d}")
@example("? [1, 2]\n: 3")
@example("!!python/object/apply:os.system [echo]")
@example("_BASE_: [[x]]")
@example("_BASE_: run.yaml")
@example("MODEL:\n  ARGS: {depth: !!binary aGk=}")
@example("DATA: {MEAN: [.nan, .inf, -.inf]}")
@example("SOLVER: {BASE_LR: .nan}")
@example("\x00")
@example("[" * 5000)
@example("a: " + "{a: " * 900 + "}" * 900)
def test_any_text_as_a_config(tmp_path, text):
    path = tmp_path / "run.yaml"
    path.write_bytes(text.encode("utf-8"))
    try:
        load_config(str(path))
    except (ValueError, FileNotFoundError) as error:
        assert "\nTraceback" not in str(error) and len(str(error)) > 10


def test_a_config_that_unfolds_without_end_is_refused(tmp_path):
    """Each line names the one before it ten times over: a thousand million keys in 600 bytes."""
    path = tmp_path / "bomb.yaml"
    lines = ["k0: &k0 {x: 1}"]
    lines += [f"k{n}: &k{n} {{{', '.join(f'v{i}: *k{n - 1}' for i in range(10))}}}" for n in range(1, 10)]
    path.write_text("\n".join(lines))
    with pytest.raises(ValueError, match=r"bomb.yaml: not valid YAML: it unfolds to more than"):
        load_config(str(path))


# ---- whole configs (tools/trust_report.py configs tries some thousand)


def test_each_value_of_each_key_takes_a_step_or_says_why_not(tmp_path, capsys):
    assert set(all_keys()) == {*VALUES, *LEFT_OUT}, "a new key has no values here"
    data = make_lists(tmp_path)
    configs = covering(4, seed=0)
    tried = [(attempt(config, data=data), config) for config in configs]
    broken = [(config, one.reason) for one, config in tried if one.outcome == "broken"]
    assert not broken
    rows = [table(configs, [one for one, _ in tried])]
    assert rows[0]["keys"] == len(VALUES) and rows[0]["ran"] >= 10
    assert problems("configs", rows) == [] and config_lines(rows)[-1] == "| anything else | 0 |"


@pytest.mark.parametrize(
    "error", [KeyError("MODEL"), RuntimeError("a tensor has no element 3"), ValueError("3")]
)
def test_what_is_no_sentence_is_broken(tmp_path, monkeypatch, error):
    monkeypatch.setattr("vidformers.config.load_config", Mock(side_effect=error))
    tried = attempt({}, data=tmp_path)
    assert tried.outcome == "broken"
    assert len(problems("configs", [table([{}], [tried])])) == 1

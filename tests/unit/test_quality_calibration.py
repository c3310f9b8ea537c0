"""Calibration on one's own answers: the file, the fit, the report, the command."""

import json
from pathlib import Path
from random import Random

import pytest
from click.testing import CliRunner

from cascaded.cli.quality import quality
from cascaded.config import Config, schema
from cascaded.daemon.errors import StartError
from cascaded.daemon.quality import make_scrutiny, shipped_judgement
from cascaded.daemon.small_models import make_small_models
from cascaded.policy.quality.calibration import (
    CalibrationError,
    Labelled,
    calibrate,
    read_labelled,
    row_of,
)
from cascaded.policy.quality.fitting import area, log_loss, logits


def labelled(count: int, seed: int = 1) -> list[dict[str, object]]:
    """Answers of a support desk: those of one model that end in a promise are bad, mostly."""
    random = Random(seed)
    made = []
    for number in range(count):
        bad = random.random() < 0.4
        promise = "I promise that it comes soon." if bad else "It left the store on Monday."
        if random.random() < 0.1:
            bad = not bad
        query = f"Where is my parcel number {number}?"
        answer = f"Thank you for asking about parcel {number}. {promise}"
        made.append({"query": query, "answer": answer, "good": not bad, "model": "mini"})
    return made


def rows(count: int) -> list[object]:
    return [row_of(Labelled(**one)) for one in labelled(count)]  # type: ignore[arg-type]


def lines(made: list[dict[str, object]]) -> bytes:
    return b"".join(json.dumps(one).encode() + b"\n" for one in made)


class TestFit:
    def test_some_dozens_set_the_level(self) -> None:
        some = rows(80)
        made, report = calibrate(some, shipped_judgement())  # type: ignore[arg-type]
        assert report.how == "the level alone"
        assert made.weights == shipped_judgement().weights
        assert report.log_loss < report.log_loss_before + 0.01
        assert report.rows == 80

    def test_some_hundreds_move_the_weights(self) -> None:
        made, report = calibrate(rows(400), shipped_judgement())  # type: ignore[arg-type]
        assert report.how.startswith("weights moved")
        assert report.area > 0.8
        fresh = [row_of(Labelled(**one)) for one in labelled(200, seed=2)]  # type: ignore[arg-type]
        good = [row.good for row in fresh]
        said = logits(made.weights, [made.scales.vector(row.traits) for row in fresh])
        assert area(said, good) > 0.8
        assert log_loss([made.offset + made.slope * one for one in said], good) < 0.5

    def test_many_may_be_fitted_anew(self) -> None:
        made, report = calibrate(rows(1_000), shipped_judgement())  # type: ignore[arg-type]
        assert report.area > 0.8
        assert made.good_share == pytest.approx(0.58, abs=0.06)
        assert report.rows_for_close < 1_000

    @pytest.mark.parametrize(("count", "good"), [(0, None), (49, None), (80, True), (80, False)])
    def test_too_few_are_refused(self, count: int, good: bool | None) -> None:
        made = labelled(count)
        if good is not None:
            made = [{**one, "good": good} for one in made]
        some = [row_of(Labelled(**one)) for one in made]  # type: ignore[arg-type]
        with pytest.raises(CalibrationError, match="too few"):
            calibrate(some, shipped_judgement())

    def test_the_report_is_of_what_it_says(self) -> None:
        _, report = calibrate(rows(300), shipped_judgement(), false_accepts=0.1)  # type: ignore[arg-type]
        [limit] = report.limits
        assert limit.false_accepts == 0.1
        assert 0 < limit.kept < 1
        assert limit.bad_among_kept <= 0.4 * 0.1 / limit.kept + 0.01
        assert sum(one.rows for one in report.reliability) == 300
        said = [one.said for one in report.reliability]
        assert said == sorted(said)
        assert abs(sum(one.said - one.good for one in report.reliability)) < 1

    def test_thresholds_rise_as_fewer_bad_ones_may_be_kept(self) -> None:
        _, report = calibrate(rows(300), shipped_judgement())  # type: ignore[arg-type]
        thresholds = [limit.threshold for limit in report.limits]
        assert thresholds == sorted(thresholds, reverse=True)


class TestFile:
    def test_everything_that_may_stand_in_it(self) -> None:
        line = {
            **labelled(1)[0],
            **{"domain": "support", "logprobs": [-0.1, -0.5], "entropy": 0.4},
            **{"agreement": 1.0, "judge": 0.9, "group": "a"},
        }
        [row] = read_labelled([lines([line]), b"\n"])
        assert row.group == "a"
        assert row.traits.evidence == pytest.approx((0.1, 0.75, 0.1, 0.5, 0.0, 0.4))
        assert len(row.traits.tags) == 2

    @pytest.mark.parametrize(
        "line", [b"{", b'{"query": "a"}', b'{"query": "a", "answer": "b", "good": 1}']
    )
    def test_mistakes_are_told_with_their_line(self, line: bytes) -> None:
        with pytest.raises(CalibrationError, match="line 2"):
            list(read_labelled([lines(labelled(1)), line]))


class TestCommand:
    def run(self, *arguments: str) -> tuple[int, str]:
        result = CliRunner().invoke(quality, ["calibrate", *arguments])
        return result.exit_code, result.output

    def test_it_writes_what_the_daemon_takes(self, tmp_path: Path) -> None:
        file, out = tmp_path / "answers.jsonl", tmp_path / "own.json"
        file.write_bytes(lines(labelled(120)))
        code, said = self.run(str(file), "--out", str(out), "--false-accept-rate", "0.05")
        assert code == 0, said
        assert "Area under the curve" in said
        config = Config(quality=schema.Quality(calibration=str(out)))
        small_models = make_small_models(config, None)
        scrutiny = make_scrutiny(config, small_models, lambda work: work())
        assert scrutiny.judgement().rows == 120
        assert "answers.jsonl" in scrutiny.judgement().source

    def test_it_tells_scripts(self, tmp_path: Path) -> None:
        file = tmp_path / "answers.jsonl"
        file.write_bytes(lines(labelled(60)))
        code, said = self.run(str(file), "--json")
        assert code == 0
        assert json.loads(said)["rows"] == 60

    def test_too_few_are_refused_with_a_clear_word(self, tmp_path: Path) -> None:
        file = tmp_path / "answers.jsonl"
        file.write_bytes(lines(labelled(10)))
        code, said = self.run(str(file), "--out", str(tmp_path / "own.json"))
        assert code == 1
        assert "too few" in said
        assert not (tmp_path / "own.json").exists()

    def test_a_place_that_is_not_there(self, tmp_path: Path) -> None:
        file = tmp_path / "answers.jsonl"
        file.write_bytes(lines(labelled(60)))
        code, said = self.run(str(file), "--out", str(tmp_path / "no" / "own.json"))
        assert code == 1
        assert "own.json" in said


class TestDaemon:
    @pytest.mark.parametrize("content", [None, b"", b"{}", b"[1]", b'{"version": 1}'])
    def test_a_calibration_that_cannot_be_used_is_told(
        self, tmp_path: Path, content: bytes | None
    ) -> None:
        file = tmp_path / "own.json"
        if content is not None:
            file.write_bytes(content)
        config = Config(quality=schema.Quality(calibration=str(file)))
        with pytest.raises(StartError, match=r"quality\.calibration"):
            make_scrutiny(config, make_small_models(config, None), lambda work: work())

    def test_ours_is_moved_to_the_share_that_is_expected(self) -> None:
        config = Config(quality=schema.Quality(good_share=0.9))
        scrutiny = make_scrutiny(config, make_small_models(config, None), lambda work: work())
        assert scrutiny.judgement().good_share == 0.9
        assert scrutiny.judgement() is scrutiny.judgement()

    def test_what_is_set_goes_over_the_mode(self) -> None:
        quality = schema.Quality(mode="strict", selfcheck_samples=5, similarity_min=0.5)
        assert quality.meant.selfcheck_samples == 5
        assert quality.meant.similarity_min == 0.5
        assert quality.meant.toxicity_max == 0.8
        assert schema.Quality().meant.rules_only

"""The dashboards that are kept are those that the script makes, and Grafana's models read them."""

import json
import re
from pathlib import Path

import pytest
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard

from scripts.build_dashboards import DASHBOARDS, FOLDER, made

ROOT = FOLDER.parent
FILES = sorted(FOLDER.glob("*.json"))
OURS = re.compile(r"\bcascaded_[a-z_]+")


@pytest.mark.parametrize("uid", DASHBOARDS)
def test_the_file_is_what_the_script_makes(uid: str) -> None:
    title, rows = DASHBOARDS[uid]
    assert (FOLDER / f"{uid}.json").read_text() == made(uid, title, rows), "run: make dashboards"


def test_there_are_no_others() -> None:
    assert [file.stem for file in FILES] == sorted(DASHBOARDS)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_grafanas_models_read_all_of_it(file: Path) -> None:
    register_default_plugins()
    told = json.loads(file.read_text())
    read = Dashboard.from_json(told)
    assert json.loads(json.dumps(read, cls=JSONEncoder)) == told, "nothing that they do not know"
    ids = [panel["id"] for panel in told["panels"]]
    assert len(set(ids)) == len(ids)
    places = {
        (x, y)
        for at in (panel["gridPos"] for panel in told["panels"])
        for x in range(at["x"], at["x"] + at["w"])
        for y in range(at["y"], at["y"] + at["h"])
    }
    area = sum(one["gridPos"]["w"] * one["gridPos"]["h"] for one in told["panels"])
    assert len(places) == area, "no panel lies on another"
    assert max(x for x, _ in places) < 24


@pytest.mark.parametrize(
    "file",
    [
        *FILES,
        *sorted((ROOT / "deploy/prometheus").glob("[ar]*ing.yml")),
        ROOT / "deploy/prometheus/alerts.yml",
    ],
    ids=lambda file: file.stem,
)
def test_every_metric_that_is_asked_for_is_documented(file: Path) -> None:
    reference = (ROOT / "docs/reference/metrics.md").read_text()
    documented = set(re.findall(r"^\| `(cascaded_[a-z_]+)`", reference, re.MULTILINE))
    named = {re.sub(r"_(bucket|count|sum)$", "", name) for name in OURS.findall(file.read_text())}
    assert named - documented == set()

"""Curves for DVC: nothing lost or doubled by a resume, nothing sent or committed."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.train.curves import Curves


def rows(folder: Path, name: str) -> list[dict[str, str]]:
    with (folder / "plots" / "metrics" / f"{name}.tsv").open() as stream:
        return list(csv.DictReader(stream, delimiter="\t"))


def line(step: int) -> dict[str, float]:
    made = {"step": float(step), "train/loss": 0.1 * step, "train/rewards/margins": -float(step)}
    return made | ({"validation/loss": 0.5} if step == 2 else {})


def test_each_step_is_there_once_after_a_resume(tmp_path: Path) -> None:
    first = Curves(tmp_path, [])
    for step in (1, 2, 3):
        first.add(line(step))
    again = Curves(tmp_path, [line(1), line(2)])  # step 3 came after the checkpoint
    again.add(line(3))
    assert rows(tmp_path, "train/loss") == [{"step": str(step), "loss": str(0.1 * step)} for step in (1, 2, 3)]
    assert [row["step"] for row in rows(tmp_path, "train/rewards/margins")] == ["1", "2", "3"]
    assert rows(tmp_path, "validation/loss") == [{"step": "2", "loss": "0.5"}]
    newest = json.loads((tmp_path / "metrics.json").read_text())
    assert newest["train"]["loss"] == pytest.approx(0.3)
    assert newest["step"] == 3


def test_no_experiment_no_upload_no_git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for command in (["git", "init", "-q"], [sys.executable, "-m", "dvc", "init", "-q"]):
        subprocess.run(command, cwd=tmp_path, check=True)
    git = ["git", "-c", "user.name=n", "-c", "user.email=e"]
    subprocess.run([*git, "commit", "-qm", "start"], cwd=tmp_path, check=True)
    monkeypatch.chdir(tmp_path)
    for name, value in {
        "DVC_ROOT": str(tmp_path),
        "DVC_EXP_BASELINE_REV": "0" * 40,
        "DVC_STUDIO_TOKEN": "token",
        "DVC_STUDIO_REPO_URL": "https://host.invalid/repo",
        "DVCLIVE_RESUME": "true",
    }.items():
        monkeypatch.setenv(name, value)
    sent: list[object] = []
    monkeypatch.setattr("dvclive.studio.post_live_metrics", lambda *args, **kwargs: sent.append(args))
    before = [path.read_bytes() for path in sorted((tmp_path / ".git").rglob("*")) if path.is_file()]
    Curves(tmp_path / "reports" / "train", [line(1)]).add(line(2))
    assert [path.read_bytes() for path in sorted((tmp_path / ".git").rglob("*")) if path.is_file()] == before
    assert not sent
    status = subprocess.run(["git", "status", "--short"], cwd=tmp_path, check=True, capture_output=True, text=True)
    assert status.stdout == "?? reports/\n"
    assert [row["step"] for row in rows(tmp_path / "reports" / "train", "train/loss")] == ["1", "2"]

"""Files that results go to: what cannot be written is told before the work for it is done."""

import os
from pathlib import Path

import pytest
from click.testing import CliRunner

from unimodal.command import main


def told(file: Path, data: Path) -> str:
    """What `eval vqa` says of a place for its result, before it reads anything else."""
    words = ["eval", "vqa", "--task", "pope", "--data", str(data), "--json", str(file)]
    done = CliRunner().invoke(main, words)
    assert done.exit_code == 2, done.output
    return " ".join(done.output.replace("│", " ").split())


def test_a_result_below_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("words")
    said = told(tmp_path / "notes.txt" / "deep" / "scores.json", tmp_path)
    assert "cannot be written" in said and "notes.txt is no folder that takes it" in said


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_may_not_be_written_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    assert "is no folder that takes it" in told(tmp_path / "scores.json", tmp_path)


def test_a_folder_that_is_not_there_is_made(tmp_path: Path) -> None:
    assert "cannot be written" not in told(tmp_path / "new" / "scores.json", tmp_path)


def test_two_results_in_one_file_are_refused(tmp_path: Path) -> None:
    kept = tmp_path / "q.jsonl"
    kept.write_text("answers")
    base = ["eval", "vqa", "--task", "pope", "--data", str(tmp_path), "--predictions", str(kept)]
    done = CliRunner().invoke(main, [*base, "--json", f"{tmp_path}/../{tmp_path.name}/q.jsonl"])
    said = " ".join(done.output.split())
    assert done.exit_code == 2 and "--predictions writes" in said and "give each its own" in said
    assert kept.read_text() == "answers"

"""The arena in Chromium: votes by keys and by buttons arrive, and every pair is shown once."""

import json
from pathlib import Path

import pytest
from browser import driven
from test_arena import NAMES, PROMPTS, SIZE, served, write_drawn

pytestmark = pytest.mark.browser


def test_people_vote_by_keys_and_by_buttons(tmp_path: Path) -> None:
    folders = write_drawn(tmp_path / NAMES[0]), write_drawn(tmp_path / NAMES[1])
    votes, all_pairs = tmp_path / "votes.jsonl", len(PROMPTS) * SIZE
    with served(folders, votes) as server, driven() as browser:
        page = browser.new_page()
        page.goto(server.url)
        for number in range(all_pairs):
            assert page.locator("img").count() == 2 and "secret" not in page.content()
            with page.expect_navigation():
                if number % 2:
                    page.keyboard.press("120"[number % 3])
                else:
                    page.locator("button").nth(number % 3).click()
        assert "All pairs are judged" in page.inner_text("body")
    lines = [json.loads(line) for line in votes.read_text().splitlines()[1:]]
    assert len(lines) == all_pairs == len({line["id"] for line in lines})

"""docs/recipes.md holds the same keys as the schema."""

from __future__ import annotations

from pathlib import Path

from gtft.recipe.skeleton import replace_key_table

PAGE = Path(__file__).parents[2] / "docs" / "recipes.md"


def test_the_key_table_is_the_schema() -> None:
    page = PAGE.read_text("utf-8")
    assert replace_key_table(page) == page, "python -m gtft.recipe.skeleton docs/recipes.md"

"""Text made from the schema: the commented formula of ``recipe new``, the table of the docs."""

from __future__ import annotations

import re
from collections.abc import Sequence

from gtft.contract import STAGES
from gtft.errors import UsageError
from gtft.recipe.keys import ANY, EACH, Key, all_keys, all_tables, write_value
from gtft.recipe.lines import locate
from gtft.recipe.portable import FIRST_LINE, NAME

_TITLES = {
    "harvest": "Harvest a corpus for the {{role}}",
    "train": "Train the {{role}} adapter",
    "eval": "Measure the {{role}} adapter against its base",
    "card": "Write the model card of the {{role}} adapter",
}

TABLE_BEGIN = "<!-- keys: begin (made by: python -m gtft.recipe.skeleton docs/recipes.md) -->"
TABLE_END = "<!-- keys: end -->"


def check_name(name: str) -> None:
    """Raise UsageError unless ``name`` can be a formula's name and a file's."""
    if not NAME.fullmatch(name) or ".." in name:
        raise UsageError(
            f"{name[:80]!r} cannot be the name of a formula",
            why="a name is letters, digits, dot, dash and underscore, at most 100",
            fix="gtft recipe new mol-gtft-mine",
        )


def write_skeleton(name: str, role: str) -> str:
    """A formula that passes lint and runs: every key with its meaning, commented out at its default."""
    check_name(name)
    parts = [
        f"# A recipe of gtft, and a formula that gt and bd read too.\n"
        f"#\n"
        f"#   Run it:        gtft run {name}\n"
        f"#   See it first:  gtft recipe explain {name}\n"
        f"#   Check it:      gtft recipe lint {name}\n"
        f"#\n"
        f"# A line that begins with #: is a key at its default; take the #: away to change it.\n",
        f'formula = "{name}"\n'
        f'description = """\n{FIRST_LINE}\nTrains a {{{{role}}}} model on this town\'s history.\n"""\n'
        f'version = 1\ntype = "workflow"\npour = true\n',
        "[vars.issue]\n"
        'description = "The bead that carries this run; gt sling fills it"\nrequired = true\n',
        "[vars.role]\n"
        'description = "The Gas Town role that the model is for"\n'
        f"default = {write_value(role)}\n",
        _table("[gtft]", "", "", {"role": '"{{role}}"'}),
    ]
    for table in all_tables():
        header = (
            f"[[gtft.{table.path.removesuffix(EACH)}]]" if table.repeats else f"[gtft.{table.path}]"
        )
        given = _SOURCES if table.path == f"harvest.sources{EACH}" else [{}]
        for values in given:
            text = _table(header, table.path, table.description, values)
            # A table of a list says nothing by its defaults: all of it is left to the reader.
            optional = table.repeats and not values
            parts.append(_comment(text) if optional else text)
    for before, stage in zip((None, *STAGES), STAGES, strict=False):
        needs = f'needs = ["{before}"]\n' if before else ""
        parts.append(f'[[steps]]\nid = "{stage}"\ntitle = "{_TITLES[stage]}"\n{needs}')
    return "\n".join(parts)


_SOURCES: list[dict[str, str]] = [
    {"type": '"claude-code"', "path": '"~/.claude/projects"'},
    {"type": '"beads"', "path": '".beads/issues.jsonl"'},
]


def copy_formula(text: str, old: str, new: str) -> str:
    """The text of a formula under another name: in its ``formula`` key and in its commands."""
    check_name(new)
    line = locate(text).find(("formula",))
    lines = text.splitlines(keepends=True)
    whole = re.compile(rf"(?<![A-Za-z0-9._-]){re.escape(old)}(?![A-Za-z0-9_-])")
    for i, content in enumerate(lines):
        if i + 1 == line or (content.lstrip().startswith("#") and "--from" not in content):
            lines[i] = whole.sub(new, content)
    return "".join(lines)


def _table(header: str, path: str, description: str, given: dict[str, str]) -> str:
    prefix = f"{path}." if path else ""
    out = [header]
    if description:
        out.append(f"# {description}")
    for key in all_keys():
        name = key.path.removeprefix(prefix)
        if not key.path.startswith(prefix) or "." in name or name.endswith(EACH) or _is_list(key):
            continue
        out.append(f"# {_meaning(key)}")
        if name in given:
            out.append(f"{name} = {given[name]}")
        else:
            value = '"…"' if key.default is None else write_value(key.default)
            out.append(f"#: {name} = {value}")
    return "\n".join(out) + "\n"


def _comment(text: str) -> str:
    return "".join(f"# {line.removeprefix('#: ')}\n" for line in text.splitlines())


def _is_list(key: Key) -> bool:
    return any(t.repeats and t.path == key.path + EACH for t in all_tables())


def _meaning(key: Key) -> str:
    limits = f" {key.range}" if key.range else ""
    return f"{key.description} ({key.type}{limits})" if key.description else f"{key.type}{limits}"


def write_key_table() -> str:
    """The Markdown table of every key, between its two markers."""
    rows = ["| key | takes | default | what it is |", "|---|---|---|---|"]
    for key in all_keys():
        takes = _escape(f"{key.type}, {key.range}" if key.range else key.type)
        dial = ", ".join(f"{k} {write_value(v)}" for k, v in key.efforts.items())
        meaning = _escape(key.description + (f" (effort: {dial})" if dial else ""))
        shown = "" if key.path.endswith(f".{ANY}") else _escape(key.default_text)
        default = shown if key.default is None else f"`{shown}`"
        rows.append(f"| `{key.path}` | {takes} | {default} | {meaning} |")
    return "\n".join([TABLE_BEGIN, *rows, TABLE_END])


def replace_key_table(page: str) -> str:
    """A page with its key table made anew. Raises ValueError when it has no markers."""
    begin, end = page.index(TABLE_BEGIN), page.index(TABLE_END)
    return page[:begin] + write_key_table() + page[end + len(TABLE_END) :]


def _escape(text: str) -> str:
    return text.replace("|", "\\|")


def main(arguments: Sequence[str]) -> None:
    """Renew the key table of the Markdown files named."""
    from pathlib import Path

    for name in arguments:
        path = Path(name)
        path.write_text(replace_key_table(path.read_text("utf-8")), "utf-8")


if __name__ == "__main__":
    import sys

    main(sys.argv[1:])

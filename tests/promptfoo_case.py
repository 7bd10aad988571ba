"""A small suite of the shape of gt-model-eval, made up here: none of its cases is one of Gas Town's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

PROMPT = """You keep the {{role}} of a lock on the canal. Step: {{step}}

Allowed: {{allowed_actions}}
{% if tide is defined %}
Tide: {{tide}}
{% endif %}

```
{{gauge}}
```

{% if note %}
## Note
{{ note }}
{% else %}
No note.
{% endif %}

Answer with one JSON object.
"""
CONFIG: dict[str, Any] = {
    "description": "canal locks",
    "prompts": ["file://prompts/lock.txt"],
    "providers": [{"id": "openai:chat:none"}],
    "defaultTest": {
        "options": {
            "transform": "output.replace(/^```(?:json)?\\s*/, '').replace(/\\s*```$/, '').trim()"
        },
        "assert": [
            {"type": "is-json"},
            {
                "type": "javascript",
                "value": "const d = JSON.parse(output);\nreturn JSON.parse(context.vars.allowed_actions).includes(d.action);\n",
            },
            {"type": "latency", "threshold": 9000},
            {"type": "cost", "threshold": 0.2},
        ],
    },
    "tests": ["file://tests/upper-lock.yaml", "file://tests/lower-lock.yaml"],
}


def make_test(**fields: Any) -> dict[str, Any]:
    """A case whose right answer is to open the sluice."""
    variables = {
        "role": "lockkeeper",
        "step": "level-check",
        "allowed_actions": '["open-sluice", "hold", "call-engineer"]',
        "gauge": "$ gauge upper\n4.10 m\n$ gauge lower\n4.08 m\n",
        "note": "",
    }
    right = "const d = JSON.parse(output);\nreturn d.action === 'open-sluice';\n"
    case = {
        "description": "levels are equal",
        "vars": variables,
        "assert": [{"type": "javascript", "value": right}],
    }
    return case | fields


def add_vars(**more: Any) -> dict[str, Any]:
    case = make_test()
    return {**case, "vars": {**case["vars"], **more}}


def assert_also(*assertions: dict[str, Any]) -> dict[str, Any]:
    case = make_test()
    return {**case, "assert": [*case["assert"], *assertions]}


def answer(action: str = "open-sluice", reason: str = "both gauges agree") -> str:
    return json.dumps({"action": action, "reason": reason})


def write_suite(
    folder: Path,
    upper: list[Any],
    lower: list[Any] | None = None,
    *,
    prompt: str = PROMPT,
    **config: Any,
) -> Path:
    """The suite in ``folder``; returns it."""
    for name in ("prompts", "tests"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / "prompts" / "lock.txt").write_text(prompt, "utf-8")
    for name, cases in (("upper-lock", upper), ("lower-lock", lower or [])):
        (folder / "tests" / f"{name}.yaml").write_text(yaml.safe_dump(cases), "utf-8")
    (folder / "promptfooconfig.yaml").write_text(yaml.safe_dump(CONFIG | config), "utf-8")
    return folder

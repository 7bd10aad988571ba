"""The same cases through promptfoo itself, and where its judgement differs from ours.

promptfoo runs the JavaScript of the cases with all that Node can do, which is why nothing here runs unless somebody asks for it. It gets
the cases that `read_cases` accepts, an environment with nothing but its own switches, and an endpoint on this machine.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from shutil import which
from typing import Any

from gtft.errors import MissingExtra, WorkerFailed, translate_os_error
from gtft.evals.checks import run_check
from gtft.evals.item import CheckSpec
from gtft.evals.promptfoo import CONFIG, NOT_JUDGED, Cases, list_cases, read_yaml

SECONDS = 3600.0
_LARGEST = 256 << 20
_SWITCHES = {
    "PROMPTFOO_DISABLE_TELEMETRY": "1",
    "PROMPTFOO_DISABLE_UPDATE": "1",
    "PROMPTFOO_DISABLE_REMOTE_GENERATION": "1",
    "PROMPTFOO_DISABLE_SHARING": "1",
    "PROMPTFOO_DISABLE_TEMPLATE_ENV_VARS": "1",
    "PROMPTFOO_DISABLE_ADAPTIVE_SCHEDULER": "1",
    "PROMPTFOO_CACHE_ENABLED": "false",
    "PROMPTFOO_FAILED_TEST_EXIT_CODE": "0",
    "OPENAI_API_KEY": "none",
    "NO_PROXY": "127.0.0.1,localhost",
}


@dataclass(frozen=True)
class Theirs:
    """What promptfoo says of one item: the answer that it got and sent through the transform, its verdict, the prompt that it sent."""

    item: str
    passed: bool
    output: str
    prompt: str
    reason: str


def find_promptfoo(environ: Mapping[str, str], cwd: Path) -> Path:
    """promptfoo on PATH, else in ``cwd``'s node_modules. Raises MissingExtra."""
    path = environ.get("PATH", "")
    found = which("promptfoo", path=path) or which(
        "promptfoo", path=str(cwd / "node_modules" / ".bin")
    )
    if found:
        return Path(found)
    raise MissingExtra(
        "promptfoo is not installed",
        why="it is neither on PATH nor in node_modules here",
        fix="npm install promptfoo@0.121.2 (gtft judges the same cases without it: gtft eval run)",
    )


def run_promptfoo(
    program: Path,
    folder: Path,
    cases: Cases,
    *,
    url: str,
    model: str,
    max_new_tokens: int,
    workdir: Path,
    environ: Mapping[str, str],
    seconds: float = SECONDS,
) -> list[Theirs]:
    """Ask ``model`` at ``url`` (an OpenAI-compatible endpoint on this machine) every case that is an item, in their order.

    ``workdir`` is an empty folder of ours: configuration, database and results stand there. Raises WorkerFailed when promptfoo ends
    without a result for each case.
    """
    config = _write_config(folder, cases, url, model, max_new_tokens)
    results = workdir / "results.json"
    try:
        (workdir / "config.json").write_text(json.dumps(config), "utf-8")
        switches = {"PROMPTFOO_CONFIG_DIR": str(workdir), "HOME": str(workdir)}
        done = subprocess.run(
            [
                *(str(program), "eval", "-c", str(workdir / "config.json"), "-o", str(results)),
                *("-j", "1", "--no-cache", "--no-table", "--no-progress-bar"),
            ],
            cwd=workdir,
            env={"PATH": environ.get("PATH", ""), **_SWITCHES, **switches},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=seconds,
            check=False,
        )
        told = f"exit {done.returncode}: {(done.stderr or done.stdout)[-300:]}"
        if not results.is_file() or results.stat().st_size > _LARGEST:
            raise _fail(told)
        doc = json.loads(results.read_bytes())
    except subprocess.TimeoutExpired as e:
        raise _fail(f"it did not end in {seconds:.0f} s") from e
    except (ValueError, RecursionError) as e:
        raise _fail(f"its results are no JSON: {e}") from e
    except OSError as e:
        raise translate_os_error(e, "running promptfoo") from e
    try:
        found = {r.item: r for r in map(_read_result, doc["results"]["results"])}
        return [found[i.id] for i in cases.items]
    except (KeyError, TypeError, AttributeError) as e:
        raise _fail(f"its results lack {e}; {told}") from e


def compare_with_promptfoo(
    cases: Cases, theirs: Sequence[Theirs], answers: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Judge each case by our own check too, and name those on which the two differ.

    ``answers``: what the same endpoint answered us, by item. Without it the answer that promptfoo got is judged, on which its
    transform has run already.
    """
    said = {t.item: t for t in theirs}
    differ, prompts, ours = [], [], 0
    for item in cases.items:
        their = said[item.id]
        if answers is None:
            check = CheckSpec(item.check.name, {**item.check.args, "transform": None})
            outcome = run_check(check, their.output)
        else:
            outcome = run_check(item.check, answers[item.id])
        ours += outcome.passed
        stem, number = cases.case_of[item.id]
        place = {"file": stem, "number": number, "case": item.check.args["case"]}
        if their.prompt != item.messages[0]["content"]:
            prompts.append(place)
        if outcome.passed != their.passed:
            differ.append(
                {
                    **place,
                    "ours": outcome.reason or "passed",
                    "promptfoo": their.reason if not their.passed else "passed",
                    "answer": their.output[:600],
                }
            )
    return {
        "n": len(cases.items),
        "agree": len(cases.items) - len(differ),
        "passed": {"gtft": ours, "promptfoo": sum(t.passed for t in theirs)},
        "disagreements": differ,
        "other_prompts": prompts,
        "not_run": [vars(n) for n in cases.not_run],
        "not_judged": list(NOT_JUDGED),
    }


def _write_config(
    folder: Path, cases: Cases, url: str, model: str, max_new_tokens: int
) -> dict[str, Any]:
    """Their prompt, default test and cases as they stand; without cost and latency, and without what is not run."""
    config = read_yaml(folder / CONFIG, folder)
    ids = {place: item for item, place in cases.case_of.items()}
    default = dict(config.get("defaultTest") or {})
    options = {k: v for k, v in (default.get("options") or {}).items() if k != "provider"}
    default |= {"assert": _keep(default.get("assert")), "options": options}
    tests = []
    for stem, number, case in list_cases(config, folder):
        if (stem, number) in ids:
            metadata = {"item": ids[stem, number]}
            tests.append({**case, "assert": _keep(case.get("assert")), "metadata": metadata})
    provider = {
        "id": f"openai:chat:{model}",
        "config": {
            "apiBaseUrl": url,
            "temperature": 0,
            "max_tokens": max_new_tokens,
        },
    }
    prompt = str((folder / config["prompts"][0].removeprefix("file://")).resolve())
    return {
        "prompts": [f"file://{prompt}"],
        "providers": [provider],
        "defaultTest": default,
        "tests": tests,
    }


def _keep(assertions: Sequence[Mapping[str, Any]] | None) -> list[Mapping[str, Any]]:
    return [a for a in assertions or () if a["type"].removeprefix("not-") not in NOT_JUDGED]


def _read_result(result: Mapping[str, Any]) -> Theirs:
    output = (result.get("response") or {}).get("output")
    graded = result.get("gradingResult") or {}
    return Theirs(
        item=str(result["testCase"]["metadata"]["item"]),
        passed=result["success"] is True,
        output=output if isinstance(output, str) else json.dumps(output),
        prompt=str(result["prompt"]["raw"]),
        reason=str(graded.get("reason") or result.get("error") or "")[:300],
    )


def _fail(why: str) -> WorkerFailed:
    return WorkerFailed(
        "promptfoo gave no result for each case",
        why=why[:600],
        fix="npm install promptfoo@0.121.2, or use gtft's own judgement: gtft eval run",
    )

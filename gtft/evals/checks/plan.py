"""Is a plan one that a town can work on: every part there, nothing in a circle, and as parallel as was said.

A plan is one JSON object: ``{"epics": {id: parent or null}, "tasks": {id: {"parent": epic, "needs": [ids]}}}``.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from gtft.evals.answer import Answer, BadAnswer, parse_object
from gtft.evals.checks.graph import has_cycle

_MOST_TASKS = 60

Needs = Mapping[str, Sequence[str]]


def check_plan(answer: Answer, args: Mapping[str, Any]) -> None:
    """The plan holds exactly the stated parts, keeps what must come first and adds no waiting.

    ``args``: epics {id: parent or null}, parents {task: epic} (its keys are the tasks), before [[first, later], …]:
    everything else was said to be independent.
    """
    doc = parse_object(answer)
    if sorted(doc) != ["epics", "tasks"]:
        raise BadAnswer(f"keys {', '.join(sorted(doc))[:60]}, not epics, tasks")
    if doc["epics"] != args["epics"]:
        raise BadAnswer("the epics or their parents are not the ones asked for")
    needs = _read_tasks(doc["tasks"], args["epics"], args["parents"])
    if has_cycle([(a, b) for a, row in needs.items() for b in row]):
        raise BadAnswer("the tasks wait for each other in a circle")
    reach = close_over(needs)
    for first, later in args["before"]:
        if first not in reach[later]:
            raise BadAnswer(f"{later} does not wait for {first}")
    wanted = _needs_of(args)
    allowed = close_over(wanted)
    for task, found in reach.items():
        if extra := sorted(found - allowed[task]):
            raise BadAnswer(
                f"{task} waits for {extra[0]} without need ("
                f"{measure_path(needs)} rounds, {measure_path(wanted)} are possible; at most "
                f"{measure_width(reach)} at once, {measure_width(allowed)} are possible)"
            )


def close_over(needs: Needs) -> dict[str, set[str]]:
    """For each task all that must be done before it, directly or not. The needs must be free of circles."""
    found: dict[str, set[str]] = {}
    for task in _sort(needs):
        found[task] = set(needs[task]).union(*(found[n] for n in needs[task]))
    return found


def measure_path(needs: Needs) -> int:
    """The number of tasks on the longest chain (the critical path, each task counting one)."""
    length: dict[str, int] = {}
    for task in _sort(needs):
        length[task] = 1 + max((length[n] for n in needs[task]), default=0)
    return max(length.values(), default=0)


def measure_width(reach: Mapping[str, Collection[str]]) -> int:
    """How many tasks can at most be worked on at once: the largest set without a need between any two.

    By Dilworth's theorem that is the number of tasks minus a largest matching along the closed needs.
    """
    taken: dict[str, str] = {}

    def assign(task: str, tried: set[str]) -> bool:
        for other in sorted(reach[task]):
            if other not in tried:
                tried.add(other)
                if other not in taken or assign(taken[other], tried):
                    taken[other] = task
                    return True
        return False

    return len(reach) - sum(assign(task, set()) for task in sorted(reach))


def _needs_of(args: Mapping[str, Any]) -> dict[str, list[str]]:
    needs: dict[str, list[str]] = {task: [] for task in args["parents"]}
    for first, later in args["before"]:
        needs[later].append(first)
    return needs


def _read_tasks(
    tasks: Any, epics: Collection[str], parents: Mapping[str, str]
) -> dict[str, list[str]]:
    if not isinstance(tasks, dict):
        raise BadAnswer("tasks is not an object")
    if len(tasks) > _MOST_TASKS or sorted(tasks) != sorted(parents):
        raise BadAnswer(
            f"tasks {', '.join(sorted(tasks))[:80]}, not {', '.join(sorted(parents))[:80]}"
        )
    found: dict[str, list[str]] = {}
    for name, row in tasks.items():
        if not isinstance(row, dict) or sorted(row) != ["needs", "parent"]:
            raise BadAnswer(f"{name}: parent and needs are asked for, nothing else")
        if row["parent"] not in list(epics):
            raise BadAnswer(f"{name} has the parent {str(row['parent'])[:40]}, which is no epic")
        if row["parent"] != parents[name]:
            raise BadAnswer(f"{name} is under {row['parent']}, not {parents[name]}")
        needs = row["needs"]
        if not isinstance(needs, list) or not all(isinstance(n, str) for n in needs):
            raise BadAnswer(f"{name}: needs is not a list of tasks")
        if len(set(needs)) != len(needs):
            raise BadAnswer(f"{name} needs a task twice")
        if unknown := [n for n in needs if n not in tasks]:
            raise BadAnswer(f"{name} needs {unknown[0][:40]}, which is no task")
        found[name] = needs
    return found


def _sort(needs: Needs) -> list[str]:
    """The tasks, each after those that it needs."""
    order: dict[str, None] = {}
    stack = [(task, False) for task in reversed(list(needs))]
    while stack:
        task, opened = stack.pop()
        if opened:
            order[task] = None
        elif task not in order:
            stack.append((task, True))
            stack += [(n, False) for n in needs[task] if n not in order]
    return list(order)

"""Several engines as one: each model is answered by the engine that has it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

from gtft.errors import UsageError
from gtft.serving.engine import Ask, End, Engine, Served, Token, Unanswerable
from gtft.serving.loading import (
    BASE,
    Adapters,
    Places,
    Wanted,
    check_memory,
    check_wanted,
    find_folder,
    group_wanted,
)
from gtft.serving.local import BUDGET, QUEUE, ROWS, LocalEngine


class ManyEngines:
    """The first engine with a name answers for it. Closing closes all."""

    def __init__(self, engines: Sequence[Engine], places: Places | None = None) -> None:
        self._engines, self._places = list(engines), places

    def list_models(self) -> tuple[Served, ...]:
        return tuple(m for e in self._engines for m in e.list_models())

    async def answer(self, ask: Ask) -> AsyncIterator[Token | End]:
        answers = self._find(ask.model).answer(ask)
        try:
            async for what in answers:
                yield what
        finally:
            # A caller who leaves early closes this one; the one below must hear of it now.
            await answers.aclose()  # type: ignore[attr-defined]

    async def count_tokens(self, ask: Ask) -> int:
        return await self._find(ask.model).count_tokens(ask)

    def count_waiting(self) -> int:
        return sum(e.count_waiting() for e in self._engines)

    def count_running(self) -> int:
        return sum(e.count_running() for e in self._engines if isinstance(e, LocalEngine))

    @property
    def fault(self) -> str:
        """Why some models are not answered any more; "" while all is well."""
        found = [e.fault for e in self._engines if isinstance(e, LocalEngine) and e.fault]
        return "; ".join(found)

    async def add_model(self, wanted: Wanted) -> None:
        """Answer with another model from now on, on a base that is in memory. Raises UsageError when there is none or when
        its name is another's, EvidenceError for files that are not those of the record."""
        if self._places is None:
            raise UsageError("models cannot be added here", why="another server answers for us")
        one = await asyncio.to_thread(check_wanted, wanted, self._places)
        others = [m for m in self.list_models() if m.id != one.artifact.id]
        taken = {n for m in others for n in (m.name, *m.aliases)}
        if both := taken.intersection((wanted.name, *wanted.aliases)):
            raise _refuse_names(sorted(both))
        refused: UsageError | None = None
        for engine in self._engines:
            if isinstance(engine, LocalEngine):
                try:
                    await engine.add_model(one)
                    return
                except UsageError as e:
                    refused = e
        assert refused is not None
        raise refused

    async def remove_model(self, name: str) -> None:
        """Raises Unanswerable when there is none of that name."""
        engine = self._find(name)
        if isinstance(engine, LocalEngine):
            await engine.remove_model(name)

    async def aclose(self) -> None:
        await asyncio.gather(*(e.aclose() for e in self._engines))

    def _find(self, name: str) -> Engine:
        for engine in self._engines:
            if any(name in (m.name, *m.aliases) for m in engine.list_models()):
                return engine
        raise Unanswerable(f"there is no model {name[:100]!r} here", missing=True)


def load_engines(
    wanted: Sequence[Wanted],
    places: Places,
    *,
    queue: int = QUEUE,
    rows: int = ROWS,
    budget: int = BUDGET,
    most: int = 8,
) -> ManyEngines:
    """Load every wanted model, each base once. ``budget``: bytes of keys and values of each base; ``most``: models in
    memory of each base.

    Raises EvidenceError, BaseMissing, and UsageError when two have one name or memory is short.
    """
    names = [n for w in wanted for n in (w.name, *w.aliases)]
    if not wanted or len(set(names)) < len(names) or BASE in names:
        raise _refuse_names(names)
    groups = group_wanted([check_wanted(w, places) for w in wanted])
    folders = [find_folder(group[0], places) for group in groups]
    check_memory([(f, g[0]) for f, g in zip(folders, groups, strict=True)], budget * len(groups))
    engines: list[Engine] = []
    for group, folder in zip(groups, folders, strict=True):
        adapters = Adapters(group, folder, most=most)
        base = BASE if not engines else f"{BASE}:{adapters.record.name}"
        engines.append(LocalEngine(adapters, base=base, queue=queue, rows=rows, budget=budget))
    return ManyEngines(engines, places)


def _refuse_names(names: Sequence[str]) -> UsageError:
    return UsageError(
        "these models cannot be served together",
        why=f"every model needs a name of its own, and {BASE} is the base's: {', '.join(names) or 'none given'}",
        fix="gtft model list",
    )

"""Shadow without a server: the worker loads the adapter itself, as the eval does."""

from __future__ import annotations

from pathlib import Path

from evals_case import example, make_adapter, make_base, make_corpus
from gtft.runner import lineage
from gtft.service import read_answers
from gtft.workers import shadow
from watch_case import NOW, SINCE, deploy, open_town, say, write_patrol


def test_the_adapter_is_asked_and_what_does_not_fit_is_counted(tmp_path: Path) -> None:
    ws, model = open_town(tmp_path)
    base = make_base(ws.path)
    corpus = make_corpus(ws.artifacts, [], [example(n) for n in range(2)])
    adapter = make_adapter(ws.artifacts, base, ws.path, corpus)
    row = deploy(ws, model, "shadow")
    short, long = write_patrol(tmp_path, 0), write_patrol(tmp_path, 1, seen="It rains. " * 400)
    # Too long as a whole: what was seen long ago is left out, and what is asked stays the question.
    talk = say("msg_t", [{"type": "text", "text": "It rains, and the valves are wet. " * 9}])
    asked = "Now: nux is idle. nudge or wait? One JSON object."
    seen = [
        {"type": "assistant", "message": talk},
        {"type": "user", "message": {"role": "user", "content": asked}},
    ]
    cut = write_patrol(tmp_path, 2, before=seen)
    _, run = lineage.find_origin(ws, row)
    job = lineage.make_job(ws, run, tmp_path / "work")
    watch = shadow.Watch(
        deployment=row.id,
        model=model.name,
        adapter=adapter.path,
        role="witness",
        mode="shadow",
        since=SINCE,
        limits={"min_decisions": 20, "min_agreement": 0, "max_fallback": 0.5, "max_escalations": 0,
                "max_rejects": 0, "max_seconds": 0},
        max_new_tokens=8,
    )  # fmt: skip
    found = shadow.look(job, watch, lambda: NOW, lambda: False)
    lines = {a.session: a for a in read_answers(ws.path, row.id)}
    # Eight tokens are no whole answer: in live the previous agent would be asked.
    assert (lines[short].why, lines[short].agreed) == ("error", False)
    assert lines[short].output
    assert lines[short].tokens and lines[short].prompt_tokens and lines[short].seconds > 0
    assert lines[cut].output and lines[cut].prompt_tokens
    assert (lines[long].why, lines[long].agreed, lines[long].output) == ("error", None, "")
    assert found["figures"]["fallbacks"]["causes"] == {"error": 3}
    assert found["figures"]["agreement"]["n"] == 2
    # Again: there is nothing left, and nothing is loaded for it.
    again = shadow.look(job, watch, lambda: NOW, lambda: False)
    assert again["figures"]["sessions"]["look"]["asked"] == 0
    assert len(list(read_answers(ws.path, row.id))) == 3

"""Sides: whole clusters, a share of every stratum, the same again when the corpus grows."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gtft.corpus.partition.split import Row, choose_held_out


def row(
    cluster: str,
    role: str | None = "witness",
    rig: str | None = "gastown",
    source: str = "claude-code",
    size: int = 1,
) -> Row:
    return Row(cluster, source, role, rig, size)


def test_the_split_takes_whole_clusters_from_every_stratum() -> None:
    made = [row(f"session:w{i}") for i in range(100)]
    made += [row(f"session:m{i}", role="mayor", rig=None) for i in range(20)]
    made += [row(f"session:b{i}", rig="beads") for i in range(10)]
    made += [row("bead:1", source="beads", role=None, rig=None)]
    split = choose_held_out(made, 0.2, seed=7)
    assert sum(c.startswith("session:w") for c in split.held) == 20
    assert sum(c.startswith("session:m") for c in split.held) == 4
    assert sum(c.startswith("session:b") for c in split.held) == 2
    assert split.unmeasured == (("beads", "", ""),)
    assert split == choose_held_out(list(reversed(made)), 0.2, seed=7)
    assert split != choose_held_out(made, 0.2, seed=8)
    assert choose_held_out(made, 0.0, seed=7).held == frozenset()


def test_small_strata_are_held_out_together() -> None:
    """Ten rigs of three clusters each give no whole cluster alone, and six of thirty together."""
    made = [row(f"session:{rig}-{i}", rig=f"rig{rig}") for rig in range(10) for i in range(3)]
    split = choose_held_out(made, 0.2, seed=1)
    assert len(split.held) == 6
    assert len(split.unmeasured) >= 4
    roles = [row(f"session:{r}-{i}", role=f"role{r}") for r in range(10) for i in range(3)]
    assert len(choose_held_out(roles, 0.2, seed=1).held) == 6


def test_no_role_loses_its_last_cluster() -> None:
    made = [row(f"session:{r}", role=f"role{r}") for r in range(10)]
    split = choose_held_out(made, 0.2, seed=1)
    assert split.held == frozenset()
    assert len(split.unmeasured) == 10


def test_a_cluster_of_several_roles_counts_where_most_of_it_is() -> None:
    made = [row(f"session:w{i}") for i in range(10)] + [row(f"m{i}", "mayor") for i in range(10)]
    mixed = [*made, row("session:w0", role="mayor", size=5)]
    as_mayor = [*made[1:], row("session:w0", role="mayor", size=6)]
    assert choose_held_out(mixed, 0.2, 3).held == choose_held_out(as_mayor, 0.2, 3).held


def test_one_huge_cluster_does_not_swallow_the_held_out_side() -> None:
    made = [row("session:big", size=90)] + [row(f"session:{i}") for i in range(10)]
    for seed in range(20):
        held = choose_held_out(made, 0.2, seed).held
        assert held
        assert "session:big" not in held


def test_a_corpus_that_grows_keeps_most_of_its_split() -> None:
    made = [row(f"session:{i}") for i in range(100)]
    before = choose_held_out(made, 0.2, 7).held
    after = choose_held_out([*made, *(row(f"session:n{i}") for i in range(10))], 0.2, 7).held
    assert len(before & after) >= 15


@given(
    st.lists(
        st.builds(
            Row,
            st.integers(0, 30).map(lambda n: f"c{n}"),
            st.sampled_from(["beads", "codex"]),
            st.sampled_from([None, "mayor", "witness"]),
            st.sampled_from([None, "one", "two"]),
            st.integers(0, 50),
        )
    ),
    st.floats(0, 0.99),
    st.integers(0, 3),
)
def test_any_rows_are_split_so_that_training_keeps_each_role(
    rows: list[Row], share: float, seed: int
) -> None:
    split = choose_held_out(rows, share, seed)
    clusters = {r.cluster for r in rows}
    assert split.held <= clusters
    assert not rows or split.held < clusters
    measured = {(r.source, r.role or "", r.rig or "") for r in rows if r.cluster in split.held}
    assert not measured & set(split.unmeasured)
    assert split == choose_held_out(list(reversed(rows)), share, seed)


def test_what_costs_training_little_is_held_out_first() -> None:
    rows = [Row(f"c{n}", "claude-code", "witness", "gizmo", 1) for n in range(20)]
    costs = {f"c{n}": 50 for n in range(20) if n % 2}
    held = choose_held_out(rows, 0.3, 7, costs).held
    assert len(held) == 6
    assert not held & costs.keys()

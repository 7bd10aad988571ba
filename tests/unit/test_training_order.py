"""The data order: every row once an epoch, the same for the same seed, little padding."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gtft.training.order import plan_order


@given(
    st.lists(st.integers(1, 900), min_size=1, max_size=80),
    st.integers(1, 9),
    st.integers(1, 3),
    st.integers(0, 5),
)
def test_every_epoch_reads_every_row_once(
    lengths: list[int], batch: int, epochs: int, seed: int
) -> None:
    n = len(lengths)
    order = plan_order(lengths, batch, n * epochs, seed)
    for k in range(epochs):
        assert sorted(order[k * n : (k + 1) * n]) == list(range(n))
    assert order == plan_order(lengths, batch, n * epochs, seed)
    # A shorter run is the beginning of a longer one: where a kill fell does not matter.
    assert plan_order(lengths, batch, n, seed) == order[:n]


def test_rows_of_like_length_share_a_batch() -> None:
    lengths = [((n * 37) % 100) * 10 + 1 for n in range(400)]
    order = plan_order(lengths, 8, 400, 7)
    padded = sum(8 * max(lengths[i] for i in order[b : b + 8]) for b in range(0, 400, 8))
    assert padded < 1.25 * sum(lengths)
    assert order != plan_order(lengths, 8, 400, 8)

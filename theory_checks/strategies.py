"""Hypothesis strategies over the synthetic families; they shrink to small, plain, untied layers."""

from __future__ import annotations

from hypothesis import strategies as st

from theory_checks.synthetic import FAMILIES, Case


def cases() -> st.SearchStrategy[Case]:
    """Any `Case` of at most 5 x 12, tied or not, with every budget share and penalty strength."""
    return st.builds(
        Case,
        family=st.sampled_from(list(FAMILIES)),
        rows=st.integers(1, 5),
        inputs=st.integers(1, 12),
        seed=st.integers(0, 2**31 - 1),
        tied=st.booleans(),
        keep=st.sampled_from([0.5, 0.3, 0.7, 0.0, 1.0]),
        strength=st.one_of(st.floats(0.01, 10.0), st.sampled_from([0.0, 100.0])),
    )

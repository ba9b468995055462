"""Random programs: what the engine computes is what the graph means, and gradients are slopes."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from test.tinyhw import shape_programs, tensor_programs


@given(st.data())
@settings(max_examples=60)
def test_random_programs_compute_what_their_graph_means(data: st.DataObject) -> None:
    tensor_programs.program_computes_its_graph(data)


@given(st.data())
@settings(max_examples=40)
def test_gradients_of_random_programs_compute_what_their_graph_means(data: st.DataObject) -> None:
    tensor_programs.gradients_compute_their_graph(data)


@given(st.data())
@settings(max_examples=60)
def test_gradients_of_random_smooth_programs_are_slopes(data: st.DataObject) -> None:
    tensor_programs.gradients_are_slopes(data)


@given(st.data())
@settings(max_examples=60)
def test_chains_of_movements_move_as_numpy_does(data: st.DataObject) -> None:
    shape_programs.movements_are_numpys(data)


@given(st.data())
@settings(max_examples=30)
def test_parts_of_a_variables_length_move_as_numpy_does(data: st.DataObject) -> None:
    shape_programs.variable_movements_are_numpys(data)


@given(st.data())
@settings(max_examples=30)
def test_writes_through_chains_of_movements_write_as_numpy_does(data: st.DataObject) -> None:
    shape_programs.writes_are_numpys(data)

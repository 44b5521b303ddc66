"""Adam over a table beside torch's."""

import pytest
import torch
from codistill.graphs.adam import TableAdam


def test_all_rows_move_as_torchs_adam_moves_them(draw):
    table = draw(7, 3)
    best = table.clone().requires_grad_()
    theirs, ours = torch.optim.Adam([best], lr=0.01), TableAdam(table, 0.01)
    for _ in range(5):
        gradient = draw(7, 3)
        gradient[2] = 0.0
        ours.step(gradient)
        best.grad = gradient.clone()
        theirs.step()
    torch.testing.assert_close(table, best.detach(), atol=1e-14, rtol=1e-14)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_touched_rows_move_by_the_formula_and_others_rest(draw, dtype):
    table = draw(9, 3).to(dtype)
    best, untouched = table.double(), table[8].clone()
    first, second, ours = torch.zeros(9, 3).double(), torch.zeros(9, 3).double(), TableAdam(table, 0.01)
    for step, rows in enumerate(([0, 3, 4], [3], [1, 4, 7, 5], [0, 3, 4], [7]), 1):
        gradient = draw(len(rows), 3).to(dtype)
        ours.step_rows(torch.tensor(rows), gradient)
        for row, g in zip(rows, gradient.double(), strict=True):
            first[row] = 0.9 * first[row] + 0.1 * g
            second[row] = 0.999 * second[row] + 0.001 * g**2
            best[row] -= 0.01 * (first[row] / (1 - 0.9**step)) / ((second[row] / (1 - 0.999**step)).sqrt() + 1e-8)
    tolerance = 1e-14 if dtype == torch.float64 else 1e-6
    torch.testing.assert_close(table.double(), best, atol=tolerance, rtol=tolerance)
    assert torch.equal(table[8], untouched)


def test_touched_rows_move_almost_as_torchs_sparse_adam_moves_them(draw):
    table = draw(9, 3)
    best = table.clone().requires_grad_()
    theirs, ours = torch.optim.SparseAdam([best], lr=0.01), TableAdam(table, 0.01)
    for rows in ([0, 3, 4], [3], [1, 4, 7, 5], [0, 3, 4], [7]):
        gradient = draw(len(rows), 3)
        ours.step_rows(torch.tensor(rows), gradient)
        best.grad = torch.sparse_coo_tensor(torch.tensor([rows]), gradient, best.shape, check_invariants=True)
        theirs.step()
    # It adds its epsilon before the correction of the bias.
    torch.testing.assert_close(table, best.detach(), atol=1e-6, rtol=1e-5)


def test_every_row_touched_is_the_dense_step(draw):
    dense, few = (one.clone() for one in [draw(4, 2)] * 2)
    ours, lazy = TableAdam(dense, 0.05), TableAdam(few, 0.05)
    for _ in range(4):
        gradient = draw(4, 2)
        ours.step(gradient)
        lazy.step_rows(torch.arange(4), gradient)
    torch.testing.assert_close(few, dense, atol=1e-14, rtol=1e-14)


@pytest.mark.parametrize("lazy", [False, True])
def test_a_unit_is_a_change_of_variable(draw, lazy):
    unit, stored = 250.0, draw(5, 2)
    table = stored * unit
    scaled, plain = TableAdam(table, 0.001, unit), TableAdam(stored, 0.001)
    for _ in range(5):
        by_table = draw(5, 2) * 1e-7  # so small that the epsilon shows
        if lazy:
            scaled.step_rows(torch.arange(5), by_table)
            plain.step_rows(torch.arange(5), by_table * unit)
        else:
            scaled.step(by_table)
            plain.step(by_table * unit)
    torch.testing.assert_close(table, stored * unit, atol=1e-11, rtol=1e-11)

"""Which evaluation is the best, and when there is no more hope for a better one."""

from __future__ import annotations

from squeezenet_paddle.training.best import Best


def test_evaluations_by_hand() -> None:
    best = Best()
    evaluations = [
        # top-1, loss -> is it the best so far, evaluations without one that helps
        (0.5, 1.00, True, 0),
        (0.4, 0.10, False, 1),
        (0.5, 1.00, False, 2),
        (0.5, 0.999, True, 3),  # better, but by so little that waiting for more is no use
        (0.5, 0.90, True, 0),
        (0.6, 3.00, True, 0),
        (0.6, 3.50, False, 1),
    ]
    for top1, loss, is_best, not_better in evaluations:
        assert best.add({"top1": top1, "loss": loss}) == is_best
        assert best.not_better == not_better
    assert (best.top1, best.loss) == (0.6, 3.0)

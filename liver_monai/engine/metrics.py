"""Scores of whole cases while training runs, in MONAI's form."""

from __future__ import annotations

from typing import Any

import torch
from monai.handlers import IgniteMetricHandler, from_engine
from monai.metrics import CumulativeIterationMetric

from liver_monai.scoring.overlap import CLASSES, N_LABELS, count_table, dice


class CaseDice(CumulativeIterationMetric):
    """Dice per case of masks ``(1, X, Y, Z)``, averaged over cases."""

    def _compute_tensor(self, y_pred: torch.Tensor, y: torch.Tensor | None = None, **kwargs: Any) -> torch.Tensor:
        """Count tables ``(B, 9)``; what is kept is small and adds up exactly across processes."""
        if y is None:
            raise ValueError("CaseDice compares a prediction with a reference, and the reference is missing")
        tables = [count_table(p[0].cpu().numpy(), r[0].cpu().numpy()) for p, r in zip(y_pred, y, strict=True)]
        return torch.stack([torch.from_numpy(table.ravel()) for table in tables])

    def by_structure(self) -> dict[str, float]:
        """The mean Dice of each structure; ``liver`` includes its tumours."""
        tables = self.get_buffer().reshape(-1, N_LABELS, N_LABELS).numpy()
        return {name: sum(dice(table, name) for table in tables) / len(tables) for name in CLASSES}

    def aggregate(self) -> torch.Tensor:
        """The mean over structures, by which the best weights are chosen."""
        return torch.tensor(list(self.by_structure().values())).mean()


class CaseDiceHandler(IgniteMetricHandler):
    """``CaseDice`` of an evaluator's ``pred`` and ``label``; each structure's score stands beside the mean."""

    def __init__(self) -> None:
        super().__init__(metric_fn=CaseDice(), output_transform=from_engine(["pred", "label"]))

    def compute(self) -> Any:
        """The mean; ``val_liver_dice`` and ``val_tumor_dice`` go into the engine's metrics."""
        scores = {f"val_{name}_dice": score for name, score in self.metric_fn.by_structure().items()}
        self._engine.state.metrics.update(scores)
        return super().compute()

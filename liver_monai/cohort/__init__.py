"""Whole commands on many cases: engine, records and reports together."""

from liver_monai.cohort.checks import check_cohort
from liver_monai.cohort.comparisons import compare_cohorts
from liver_monai.cohort.evaluations import evaluate_cohort
from liver_monai.cohort.predictions import Extras, predict_cohort

__all__ = ["Extras", "check_cohort", "compare_cohorts", "evaluate_cohort", "predict_cohort"]

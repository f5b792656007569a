"""The benchmark command: trials, tables, plots, page and record."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from liver_monai.data.preparation import open_dataset
from liver_monai.engine.benchmark import (
    failures,
    keep_plan,
    leak_table,
    patient_table,
    plan_trials,
    slice_table,
    try_trial,
)
from liver_monai.engine.leak_trial import run_leak
from liver_monai.engine.training import WITHOUT_END
from liver_monai.engine.trial import Plan, run_trial
from liver_monai.io.files import whole_file, write_json
from liver_monai.io.record import provenance, write_record
from liver_monai.io.tables import write_rows
from liver_monai.model.bundle import list_bundles
from liver_monai.report.benchmark import draw_benchmark, write_benchmark_markdown, write_benchmark_report

TABLES = ("slices", "patients", "leak")


def run_benchmark(
    plan: Plan,
    *,
    bundles: Sequence[str] = (),
    folds: Sequence[int] = (0,),
    show_leak: bool = False,
    resume: bool = False,
    trust_bundle: bool = False,
    say: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Train bundles alike, score them by slice and by patient, and write both tables beside each other.

    Args:
        plan: data, budget and everything else that the bundles share; its ``out`` gets the results.
        bundles: names or folders; none: all that ship.
        folds: which parts of the cases test, each for itself. The part after it validates, the others train.
        show_leak: train once more on a split by slice, to show what that hides.
        resume: keep what is finished and go on.
        trust_bundle: run whatever the bundles name, see ``require_trusted``.
        say: gets what happens, a line at a time.

    Returns:
        What ``benchmark.json`` holds.

    Raises:
        InputError: nothing can be begun; what goes wrong later is listed under ``failed``.
    """
    trials = plan_trials(plan, bundles or list_bundles(), folds, trust_bundle=trust_bundle)
    keep_plan(plan, resume=resume)
    results = [try_trial(run_trial, trial, say=say) for trial in trials]
    trained = [trial for trial, result in zip(trials, results, strict=True) if "error" not in result]
    leaks = [try_trial(run_leak, trial, say=say) for trial in trained] if show_leak else []
    content = {
        "n": len(open_dataset(plan.data).cases),
        "folds": list(dict.fromkeys(folds)),
        "n_folds": plan.n_folds,
        "budget": _budget_in_words(plan.overrides),
        "seed": plan.seed,
        "settings": plan.overrides,
        "slices": slice_table(results),
        "patients": patient_table(results, out=plan.out, seed=plan.seed),
        "leak": leak_table(leaks, seed=plan.seed),
        "failed": failures([*results, *leaks]),
    }
    _write(content, plan.out, runs=[trial.folder / "run" for trial in trained], say=say)
    return content


def _budget_in_words(overrides: Mapping[str, Any]) -> str:
    given = {"minutes": overrides.get("minutes"), "epochs": overrides.get("max_epochs")}
    said = [f"{value:g} {unit}" for unit, value in given.items() if value not in (None, WITHOUT_END)]
    return " or ".join(said) or "as the bundles say"


def _write(content: dict[str, Any], out: Path, *, runs: Sequence[Path], say: Callable[[str], None]) -> None:
    for name in TABLES:
        if content[name]:
            write_rows(out / f"{name}.csv", content[name])
    figures = draw_benchmark(content)
    for name, figure in figures.items():
        with whole_file(out / name) as temporary:
            temporary.write_bytes(figure.png)
    record = write_record(out / "record.json", inputs=[run / "models" / "model.pt" for run in runs])
    facts = provenance({**record, "inputs_sha256": {}})
    write_benchmark_report(out / "report.html", content, figures=list(figures.values()), provenance=facts)
    say(write_benchmark_markdown(out / "benchmark.md", content))
    write_json(out / "benchmark.json", content)
    say(f"report: {out / 'report.html'}")

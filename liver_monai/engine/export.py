"""A trained run becomes one file that says itself how it is to be used, and gives the run's masks."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch

from liver_monai.engine.cleaning import clean_mask
from liver_monai.engine.inference import Choices, Model, bundles_of, load_model
from liver_monai.engine.inferer import SlabInferer
from liver_monai.engine.parity import Parity, ct_or_phantom, measure_parity, require_parity
from liver_monai.errors import InputError
from liver_monai.io.files import file_hash, whole_file
from liver_monai.io.record import environment, write_record
from liver_monai.model.bundle import find_bundle, read_config, read_spec, weights_of
from liver_monai.model.formats import FORMATS, Format, format_of
from liver_monai.model.onnx import require_same_logits
from liver_monai.model.recipe import Recipe, read_recipe

ON_CPU = Choices(device="cpu", runtime="torch")
DESCRIBED = {
    "preprocessing": "liver_monai.data.transforms.preprocessing",
    "inferer": "liver_monai.engine.inferer.SlabInferer",
    "postprocessing": "liver_monai.engine.postprocess.postprocessing",
}
"""What a recipe can tell of ``inference.json``: these, with any values."""


def export(
    bundle: str | Path,
    *,
    out: Path,
    to: str | None = None,
    ct: Path | None = None,
    overwrite: bool = False,
    say: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Write a run's network with its recipe inside, and hold it against the run on a CT before it is kept.

    Args:
        bundle: a trained run.
        out: the file, of the format's suffix; ``<out>.json`` beside it tells recipe, parity and origin, and nothing
            needs it.
        to: a name in ``FORMATS``; by default what the suffix says.
        ct: what both segment; a phantom without it.
        overwrite: replace files that are there.
        say: takes a line for people.

    Returns:
        JSON types: file, format, size in bytes, recipe, parity.

    Raises:
        InputError: no trained run, several, one that a recipe cannot tell, a format that is not installed or does not
            fit the suffix, a file that is there, or another mask than the run's.
    """
    name = _format(out, to)
    if out.exists() and not overwrite:
        raise InputError(f"{out}: is there already; give --overwrite or another -o")
    folder = _one_run(bundle)
    run = load_model(folder, choices=ON_CPU)
    recipe = recipe_of(folder)
    try:
        parity, size = _write(run, recipe, out, FORMATS[name], ct)
    except OSError as error:
        raise InputError(f"{out}: cannot be written ({error}); choose another -o") from error
    report: dict[str, Any] = {
        "file": str(out),
        "format": name,
        "size_bytes": size,
        "recipe": recipe.to_json(),
        "parity": parity.to_json(),
    }
    inputs = [weights_of(folder), out, *([ct] if ct else [])]
    write_record(out.with_name(f"{out.name}.json"), inputs=inputs, **report)
    say(_describe(report, parity))
    return report


def _write(run: Model, recipe: Recipe, out: Path, form: Format, ct: Path | None) -> tuple[Parity, int]:
    """The file, and what belongs beside it, if it gives the run's mask; its parity, and its size in bytes."""
    with ExitStack() as stack:
        file = stack.enter_context(whole_file(out))
        if form.beside:
            stack.enter_context(whole_file(out.with_suffix(form.beside)))  # which is the first to get its name
        form.write(_network(run), file, recipe)
        parity = _held_against(run, file, ct, out)
        size = sum(file.with_suffix(suffix).stat().st_size for suffix in (file.suffix, form.beside) if suffix)
    return parity, size


def recipe_of(bundle: Path) -> Recipe:
    """What a run does before and after its network.

    Raises:
        InputError: its ``inference.json`` declares something that a recipe cannot tell.
    """
    path = bundle / "configs" / "inference.json"
    config = read_config(path)
    for part, expected in DESCRIBED.items():
        found = config[part].get("_target_") if isinstance(config[part], dict) else config[part]
        if found != expected:
            raise InputError(f"{path}: its {part} is {found}; only a run with {expected} can be exported")
    recipe = Recipe(
        spec=read_spec(bundle),
        inferer=_values(config["inferer"], SlabInferer, ("sw_batch_size", "overlap", "search")),
        cleaning=_values(config["postprocessing"], clean_mask, ("largest_component", "fill_holes", "min_lesion_mm3")),
        weights_sha256=file_hash(weights_of(bundle)),
        made_by=environment(),
    )
    return read_recipe(recipe.dumps(), path)  # an expression in the place of a value is no recipe


def _values(config: Mapping[str, Any], takes: Callable[..., Any], names: Sequence[str]) -> dict[str, Any]:
    """What a config sets, and the defaults of what it leaves out."""
    defaults = inspect.signature(takes).parameters
    return {name: config.get(name, defaults[name].default) for name in names}


def _format(out: Path, to: str | None) -> str:
    suffixes = ", ".join(f"{each.suffix} ({name})" for name, each in FORMATS.items())
    name = to or format_of(out)
    if name is None:
        raise InputError(f"{out}: says no format; end its name in {suffixes}")
    if out.suffix.lower() != FORMATS[name].suffix:
        raise InputError(f"{out}: a file of {name} ends in {FORMATS[name].suffix}, and predict knows it by that")
    return name


def _one_run(bundle: str | Path) -> Path:
    runs = bundles_of(bundle)
    if len(runs) > 1:
        raise InputError(f"{bundle}: holds {len(runs)} runs; export one of them, such as {runs[0]}")
    return find_bundle(bundle)


def _held_against(run: Model, file: Path, ct: Path | None, out: Path) -> Parity:
    """Logits of random slabs of several sizes first, then the mask."""
    exported = load_model(file, choices=Choices(device="cpu"))
    require_same_logits(exported.network, run.network, slab_size=run.spec.slab_size, path=out)
    with ct_or_phantom(ct) as shown:
        parity = measure_parity(run, exported, shown)
    require_parity(parity, out)
    return parity


def _network(run: Model) -> torch.nn.Module:
    if not isinstance(run.network, torch.nn.Module):
        raise TypeError(f"a run's network on a CPU is a module, not a {type(run.network).__name__}")
    return run.network


def _describe(report: dict[str, Any], parity: Parity) -> str:
    scores = ", ".join(f"{name} Dice {value:.5f}" for name, value in parity.dice.items())
    return (
        f"{report['file']}: {report['size_bytes'] / 1e6:.1f} MB; against the run on {parity.ct}: {scores}, logits "
        f"differ by {parity.max_logit_difference:.2g} of {parity.logit_span:.1f}, {parity.speed:.2f} times as fast"
    )

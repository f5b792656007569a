"""What a check finds, and what is kept of a case that was checked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from liver_monai.data.checks.content import Content
from liver_monai.data.checks.thumbnail import Thumbnail

Severity = Literal["note", "warning", "error"]
SEVERITIES: tuple[Severity, ...] = ("note", "warning", "error")
"""Worth knowing; makes figures wrong or a case doubtful; makes results wrong, or none, as long as it is not mended."""


@dataclass(frozen=True, kw_only=True)
class Observed:
    """What a check saw: the value and the rule it breaks in words, and the same in figures of JSON types."""

    text: str
    figures: Mapping[str, Any] = field(default_factory=dict)
    case_id: str = ""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One row of a check's result.

    Args:
        case_id: the case, or ``""`` for the data set as a whole.
        check: name of the check, a row of the table in ``checks.table``.
        message: what was seen, the rule, and the way out.
        figures: the numbers of the message, of JSON types.
    """

    case_id: str
    check: str
    severity: Severity
    message: str
    figures: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class CaseReport:
    """What is known of a case once its voxels are let go.

    Args:
        figures: the case's fingerprint: shape, spacing, HU, volumes; of JSON types.
        content: what duplicates are found by; ``None`` where the image could not be read, like ``thumbnail``.
    """

    case_id: str
    image: str
    label: str | None = None
    patient_id: str = ""
    findings: tuple[Finding, ...] = ()
    figures: Mapping[str, Any] = field(default_factory=dict)
    content: Content | None = None
    thumbnail: Thumbnail | None = None


def worst_severity(findings: Iterable[Finding]) -> Severity | None:
    """The gravest of them; ``None`` without findings."""
    ranks = [SEVERITIES.index(finding.severity) for finding in findings]
    return SEVERITIES[max(ranks)] if ranks else None

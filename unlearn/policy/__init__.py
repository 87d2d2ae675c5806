"""Policies as documents: what may be written, how a file is read, and what every key means."""

from unlearn.measurements import DEFAULT_LIMITS
from unlearn.policy.checks import EMBEDDED, OWN, PACKAGE, WRITTEN
from unlearn.policy.document import PLAIN, Policy
from unlearn.policy.parts import (
    AuditSpec,
    FactSpec,
    Keep,
    PromptVariants,
    RelationSpec,
    StatisticsSpec,
    is_question,
    listed_in,
)

__all__ = [
    "AuditSpec",
    "DEFAULT_LIMITS",
    "EMBEDDED",
    "OWN",
    "FactSpec",
    "Keep",
    "PromptVariants",
    "PACKAGE",
    "PLAIN",
    "Policy",
    "RelationSpec",
    "StatisticsSpec",
    "WRITTEN",
    "is_question",
    "listed_in",
]

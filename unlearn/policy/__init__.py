"""Policies as documents: what may be written, how a file is read, and what every key means."""

from unlearn.policy.document import (
    DEFAULT_LIMITS,
    EMBEDDED,
    PACKAGE,
    PLAIN,
    WRITTEN,
    AuditSpec,
    FactSpec,
    Keep,
    MoreForms,
    Policy,
    RelationSpec,
    StatisticsSpec,
    is_question,
    listed_in,
)

__all__ = [
    "AuditSpec",
    "DEFAULT_LIMITS",
    "EMBEDDED",
    "FactSpec",
    "Keep",
    "MoreForms",
    "PACKAGE",
    "PLAIN",
    "Policy",
    "RelationSpec",
    "StatisticsSpec",
    "WRITTEN",
    "is_question",
    "listed_in",
]

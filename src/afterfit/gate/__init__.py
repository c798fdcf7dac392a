"""Whether a version may go in: findings about it, their limits, and the verdict that they come to.

It never moves an alias and never writes anything down. Words: docs/glossary.md.
"""

from typing import TYPE_CHECKING

from afterfit.package import lazy

if TYPE_CHECKING:
    from afterfit.gate.examination import examine
    from afterfit.gate.verdict import (
        Finding,
        Verdict,
        another_version,
        approval,
        beats_dummy,
        champion_does_not_load,
        confidence_left,
        enough_rows,
        fresh,
        guardrail,
        judge,
        judged_by_fold,
        no_champion,
        none_seen,
        not_rolled_back,
        not_worse,
        only_lacks_evidence,
        other_answers,
        outside_training,
        policy_hash,
        primary,
        rows_unread,
        slices,
        uses,
        value,
    )
else:
    __getattr__, __dir__ = lazy(
        __name__,
        {
            "examination": ("examine",),
            "verdict": (
                "Finding",
                "Verdict",
                "another_version",
                "approval",
                "beats_dummy",
                "champion_does_not_load",
                "confidence_left",
                "enough_rows",
                "fresh",
                "guardrail",
                "judge",
                "judged_by_fold",
                "no_champion",
                "none_seen",
                "not_rolled_back",
                "not_worse",
                "only_lacks_evidence",
                "other_answers",
                "outside_training",
                "policy_hash",
                "primary",
                "rows_unread",
                "slices",
                "uses",
                "value",
            ),
        },
    )

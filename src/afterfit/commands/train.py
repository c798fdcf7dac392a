"""Train one model of a use case, log what a person needs to judge it, and register it as a version."""

from afterfit.lifecycle.result import CommandResult
from afterfit.lifecycle.training_run import choose, described, load_table, summary, train_and_register
from afterfit.mlflow_store import tracking
from afterfit.use_case import load_use_case


def command(config: str, builder: str = "", params_from: str = "", register: bool = True) -> CommandResult:  # noqa: FBT001, FBT002 - an option of the command line
    """Train, log and register; see scripts/train.py for the options."""
    use_case = load_use_case(config)
    chosen, params = choose(use_case, builder, params_from)
    with tracking.run(use_case.name, f"train {chosen}", {"afterfit.use_case": use_case.name}) as active:
        result = train_and_register(load_table(use_case), chosen, params, register=register)
    return CommandResult(tuple(described(result)), {**summary(result), "run_id": active.info.run_id})

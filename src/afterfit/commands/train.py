"""Train one model of a use case, log what a person needs to judge it, and register it as a version."""

from afterfit.lifecycle.result import CommandResult
from afterfit.lifecycle.training_run import train_version
from afterfit.use_case import load_use_case


def command(config: str, builder: str = "", params_from: str = "", register: bool = True) -> CommandResult:  # noqa: FBT001, FBT002 - an option of the command line
    """Train, log and register; see scripts/train.py for the options."""
    return train_version(load_use_case(config), builder, params_from, register=register)

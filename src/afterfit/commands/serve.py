"""Serve the version that holds an alias over HTTP, and follow the alias, until a signal stops it."""

import os
import sys
from typing import TYPE_CHECKING

from afterfit.errors import AfterfitError, SettingsError
from afterfit.lifecycle.result import CommandResult
from afterfit.server.options import ServerOptions
from afterfit.server.supervisor import Supervisor
from afterfit.settings import hash_secret
from afterfit.texts.redaction import redact

if TYPE_CHECKING:
    from afterfit.prediction_log.log import PredictionLog


def command(
    config: str,
    alias: str = "production",
    *,
    host: str = "127.0.0.1",
    port: float = 5001,
    workers: float = 1,
    shadow: str = "",
    log: str = "",
    durability: str = "",
    access: str = "stdout",
    model: str = "",
) -> CommandResult:
    """Serve; see scripts/serve.py for the options. Returns when the server was stopped and its log sealed."""
    plan = ServerOptions(config, "" if model else alias, "", shadow, log, durability, access, model)
    use_case = plan.use_case
    folder = use_case.log.folder or os.environ.get("AFTERFIT_LOG", "").strip()
    if not 1 <= workers <= 64 or workers != int(workers):
        raise SettingsError(f"workers must be a whole number from 1 to 64; got {workers:g}.")
    if not 0 <= port <= 65_535 or port != int(port):
        raise SettingsError(f"port must be a whole number from 0 to 65535; got {port:g}.")
    if shadow and model:
        raise SettingsError(
            "A shadow follows an alias of the registry, and --model goes without one: give one of the two."
        )
    if shadow and not folder:
        raise SettingsError(
            "A shadow answers into the prediction log: name one with --log, or log.folder in the settings."
        )

    if folder:
        hash_secret(use_case.hashed, kept=[name for name in use_case.hashed if name in use_case.key])

    def announce(address: str, seconds: float) -> None:
        log_words = f"log in {folder} ({use_case.log.durability})" if folder else "no prediction log"
        what = f"{use_case.name}@{plan.alias}" if plan.alias else f"{use_case.name} from {model}"
        where = f"{address} after {seconds:.1f} s"
        sys.stderr.write(redact(f"Serving {what} at {where}: {int(workers)} worker(s), {log_words}.\n"))
        sys.stderr.flush()

    Supervisor(plan, host, int(port), int(workers), announce).run()

    from afterfit import prediction_log  # noqa: PLC0415 - the server's processes start sooner without it

    place = prediction_log.log_of(use_case)
    lines = ("Stopped.",) if place is None else ("Stopped.", _seal(place))
    return CommandResult(lines, {"use_case": use_case.name, "alias": plan.alias, "model": model})


def _seal(log: "PredictionLog") -> str:
    from afterfit import prediction_log  # noqa: PLC0415 - as above

    try:
        counts = prediction_log.seal(log)
    except AfterfitError as error:
        return f"The log was not sealed, which the next sealing makes up for: {error}"
    return f"Sealed {counts.answers:,} answers and {counts.outcomes:,} outcomes in {log.store.address}."

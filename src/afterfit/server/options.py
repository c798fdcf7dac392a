"""What a server is started with, as its processes hand it to each other."""

import json
from dataclasses import asdict, dataclass
from functools import cached_property

from afterfit.use_case import UseCase, load_use_case


@dataclass(frozen=True)
class ServerOptions:
    """What is served where.

    Attributes:
        config: a built-in use case or a settings file.
        alias: which alias is followed; a version's number holds still.
        shared: a folder of this server's processes alone.
        shadow: the alias that answers behind it; empty for none.
        log: the prediction log's folder; empty: as the use case says.
        durability: of the log; empty: as the use case says.
        access: where the access log goes: stdout, none, or a file.
        model: the folder of one version, as MLflow downloads it, which is served without a registry; empty for none.
    """

    config: str
    alias: str
    shared: str
    shadow: str = ""
    log: str = ""
    durability: str = ""
    access: str = "stdout"
    model: str = ""

    @cached_property
    def use_case(self) -> UseCase:
        """The use case, with what the options changed of its log."""
        use_case = load_use_case(self.config)
        changed = {"folder": self.log, "durability": self.durability}
        update = {key: value for key, value in changed.items() if value}
        if not update:
            return use_case
        log = type(use_case.log).model_validate({**use_case.log.model_dump(), **update})
        return use_case.model_copy(update={"log": log})

    def to_json(self) -> str:
        """JSON for another process's command line."""
        return json.dumps(asdict(self))


def plan_of(text: str) -> ServerOptions:
    """The inverse of `ServerOptions.to_json`."""
    return ServerOptions(**json.loads(text))

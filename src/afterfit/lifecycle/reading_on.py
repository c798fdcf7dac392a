"""How a use case's tables are read once there are versions: as the one that it goes on from reads them."""

from afterfit.errors import BundleError, UnknownVersionError
from afterfit.mlflow_store import registry
from afterfit.use_case import UseCase


def as_before(use_case: UseCase) -> UseCase:
    """The use case that reads its tables as production does, else as the latest version, where its settings are silent.

    Without versions, and where the version's bundle does not load, the settings and the table itself say it all.
    """
    try:
        holder = registry.holder(use_case.name, registry.PRODUCTION)
        version = registry.version(use_case.name, "latest") if holder is None else holder
        return registry.load_bundle(version).read_on(use_case)
    except (BundleError, UnknownVersionError):
        return use_case

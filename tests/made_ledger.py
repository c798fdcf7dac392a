"""Made versions, their decisions, and whether ledger, aliases and locks agree."""

import multiprocessing

from afterfit.mlflow_store import decisions, ledger, registry, tracking
from afterfit.mlflow_store.decisions import Decision

FORK = multiprocessing.get_context("fork")


def make_versions(count, name="sizes"):
    """So many versions of a fresh registered model, without files: nothing could load them."""
    from mlflow import MlflowClient

    client = MlflowClient()
    client.create_registered_model(name)
    run = client.create_run(tracking.experiment_id("nothing"))
    for _ in range(count):
        client.create_model_version(name, f"{run.info.artifact_uri}/model", run.info.run_id)


def promotion(version, **more):
    """The decision to put a version into production."""
    return Decision("promotion", "PROMOTE", str(version), "production", moves=True, page="A page.", **more)


def promote(version, **more):
    """Record it against what is in production now; gives the ledger's entry."""
    book = ledger.entries("sizes")
    held = decisions.holder(book, "production")
    return ledger.record("sizes", promotion(version, previous=held, **more), len(book))[0]


def consistent(name="sizes"):
    """The alias is where the ledger says, no entry is left open, and the numbers have no gap."""
    book = ledger.entries(name)
    assert [entry.number for entry in book] == list(range(1, len(book) + 1))
    assert {entry.state for entry in book} <= {"done", "abandoned"}
    assert registry.aliases(name).get("production", "") == decisions.holder(book, "production")
    return book

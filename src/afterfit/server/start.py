"""How a process of the server begins: nothing is collected while it imports, and nothing is imported without need.

What is imported lives as long as the process: looking for garbage in it would cost a quarter of the start. skops asks
scikit-learn for all of its estimators, which imports all of its modules; a bundle's own are imported when it is loaded
(`safe_loading.is_estimator` says which are safe).
"""

import gc
import sys


def worker(*rest: str) -> None:
    """A process that answers."""
    gc.disable()
    import sklearn.utils  # noqa: PLC0415 - nothing before the line above

    everything = sklearn.utils.all_estimators
    sklearn.utils.all_estimators = lambda *_: []
    from afterfit.server.worker import main  # noqa: PLC0415 - as above

    sklearn.utils.all_estimators = everything
    gc.freeze()
    gc.enable()
    main(*rest)


def watcher(text: str) -> None:
    """The process that asks the registry; it looks for garbage from its first answer on."""
    gc.disable()
    from afterfit.server.registry_watcher import main  # noqa: PLC0415 - as above

    main(text)


if __name__ == "__main__":
    (worker if sys.argv[1] == "worker" else watcher)(*sys.argv[2:])

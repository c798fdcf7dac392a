"""Serve the version that holds an alias over HTTP, follow the alias, log each prediction; SIGTERM or Ctrl-C ends it."""

import argparse
import sys

from afterfit.commands import console


def options() -> argparse.ArgumentParser:
    """The options and their defaults, as MLproject has them."""
    parser = argparse.ArgumentParser("serve", description=__doc__)
    parser.add_argument("--config", default="flights-late", help="a built-in use case or a settings file")
    parser.add_argument("--alias", default="production", help="the alias to follow, or a version number")
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen at; 0.0.0.0 for all")
    parser.add_argument("--port", type=float, default=5001, help="0 for a free one")
    parser.add_argument("--workers", type=float, default=1, help="processes that answer")
    parser.add_argument("--shadow", default="", help="an alias whose version answers behind the answers, into the log")
    parser.add_argument("--log", default="", help="the prediction log's folder; empty: as the use case says")
    parser.add_argument("--durability", default="", help="acknowledged or buffered; empty: as the use case says")
    parser.add_argument("--access", default="stdout", help="the access log: stdout, none, or a file")
    parser.add_argument("--model", default="", help="a version's folder, served alone: no registry, no reload")
    return parser


if __name__ == "__main__":
    sys.exit(console.run(options(), "serve"))

#!/bin/sh
# From a fresh machine to a model in production that has answered: set up, then the main job on real flights.
set -eu
cd "$(dirname "$0")/.."
sh scripts/setup.sh
PATH="$PWD/.venv/bin:$PATH"
export PATH MLFLOW_DISABLE_TELEMETRY=true MLFLOW_LOGGING_LEVEL=ERROR
mlflow run . --env-manager local --experiment-name flights-late "$@"
cat <<'END'

Try next:
  PATH="$PWD/.venv/bin:$PATH" mlflow run . --env-manager local -e backtest
  PATH="$PWD/.venv/bin:$PATH" mlflow run . --env-manager local -e serve -P port=5002 -P log=predictions
  .venv/bin/mlflow ui --port 5000
  PATH="$PWD/.venv/bin:$PATH" mlflow models serve -m models:/flights-late@production --env-manager local --port 5001
  curl -s http://127.0.0.1:5001/invocations -H 'Content-Type: application/json' -d '{"dataframe_records": [{"carrier": "UA", "origin": "EWR", "dest": "LEX", "scheduled_departure": "2013-04-02T17:30:00", "distance": 588, "temp": "51.1"}]}'
END

"""One turn of the loop each hour, for Airflow 3: put this file into the DAGs folder.

The project stays in its own environment. Variables of Airflow: afterfit_home (the checkout), afterfit_python (default:
.venv/bin/python there), afterfit_config (a built-in use case or a settings file), afterfit_tracking (MLflow's address).
An alarm or a hold (exit code 3) and a refused candidate (4) are shown as skipped, and not tried again: the turn did its
work, and told whom the policy names. The turn's line of JSON is the task's XCom.
"""

from datetime import datetime, timedelta, timezone

from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import DAG

HOME = "{{ var.value.get('afterfit_home', '/srv/afterfit') }}"

with DAG(
    dag_id="afterfit",
    description="Monitor the next window, then retrain, promote, roll back or alarm.",
    schedule="17 * * * *",
    start_date=datetime(2024, 1, 1, tzinfo=timezone.utc),
    catchup=False,
    max_active_runs=1,
    tags=["afterfit"],
):
    BashOperator(
        task_id="step",
        bash_command='cd "$AFTERFIT" && exec "${PYTHON:-.venv/bin/python}" scripts/step.py --config "$CONFIG"',
        env={
            "AFTERFIT": HOME,
            "PYTHON": "{{ var.value.get('afterfit_python', '') }}",
            "PYTHONPATH": f"{HOME}/src",
            "CONFIG": "{{ var.value.get('afterfit_config', 'flights-late') }}",
            "MLFLOW_TRACKING_URI": "{{ var.value.get('afterfit_tracking', 'http://127.0.0.1:5000') }}",
        },
        append_env=True,
        skip_on_exit_code=[3, 4],
        retries=2,
        retry_delay=timedelta(minutes=5),
        execution_timeout=timedelta(hours=3),
    )

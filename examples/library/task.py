"""A load as a task of a scheduler (Airflow, Dagster, Prefect): a function that may be tried again."""

import loader


class GiveUp(Exception):
    """What the scheduler takes for "not again": Airflow's AirflowFailException, Dagster's Failure."""


def load_users(day: str) -> dict[str, int]:
    try:
        report = loader.run(
            "load.toml", overrides={"export.path": f"exports/{day}.csv", "checkpoint.path": f"{day}.ckpt"}
        )
    except loader.Refused as error:  # settings, export, checkpoint: it would be refused again
        raise GiveUp(str(error)) from error
    # A loader.Stopped fails this try; the next one goes on where it was.
    if report.failures:
        raise GiveUp(f"{report.failures:,} of {report.rows:,} rows failed; see {report.checkpoint}")
    return {code.value: count for code, count in report.counts.items()}


print(load_users("2026-01-31"))

"""From a spec to a finished run: plan, patterns, engine, Prefect flow, report, command line."""

"""Trackers: TensorBoard and MLflow, one module each, and how a run tells them."""

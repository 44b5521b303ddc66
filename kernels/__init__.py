"""Tensor functions for distillation. They know nothing of agents or specs."""

"""Optimizers, learning-rate schedules, weight averages, transfer learning."""

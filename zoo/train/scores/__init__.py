"""Quality of a trained network: metrics, predictions, tables, plots."""

"""Judge outputs against a reference: differences, limits, the report."""

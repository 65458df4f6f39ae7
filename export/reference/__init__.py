"""The reference in float64, the noise floor around it, and the inputs both are computed on."""

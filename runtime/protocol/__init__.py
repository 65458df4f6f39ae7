"""The Open Inference Protocol: data types and refusals that server and client share."""

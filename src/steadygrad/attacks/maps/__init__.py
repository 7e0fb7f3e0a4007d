"""Attacks on explanations: inputs of the same prediction whose map is another one."""

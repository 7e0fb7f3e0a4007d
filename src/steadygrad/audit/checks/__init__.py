"""Whether a robustness number may be believed."""

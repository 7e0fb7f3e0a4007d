"""The audit of classifiers: what is measured, and the summary that says what was found."""

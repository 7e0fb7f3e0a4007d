"""What the numbers of a table are worth: estimates and differences, each with its 95 % interval."""

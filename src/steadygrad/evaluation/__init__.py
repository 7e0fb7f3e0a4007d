"""What is not yet in its new room."""

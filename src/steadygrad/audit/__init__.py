"""What is said about models: everything that was measured, as numbers with their intervals."""

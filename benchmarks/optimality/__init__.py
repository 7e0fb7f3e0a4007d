"""Local optimality of the searches for the smallest change, as AttackBench defines it, next to other libraries."""

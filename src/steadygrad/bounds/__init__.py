"""How far an attribution can move within a threat: bounds to first order, and certified ones."""
